"""Both ways to bind, on the CPU: a device's buffer may lie in the host's memory too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from srpipe.io.binding import Binding, DeviceBinding, HostBinding
from srpipe.io.onnx_runtime import ort
from tests.onnx_models import conv_model


def load(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(params=["host", "device"])
def bound(request: pytest.FixtureRequest, x2_model: Path) -> tuple[ort.InferenceSession, Binding]:
    session = load(x2_model)
    if request.param == "host":
        return session, HostBinding(session)
    return session, DeviceBinding(session, "cpu", 0)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def test_results_lie_where_they_were_wanted(
    bound: tuple[ort.InferenceSession, Binding],
) -> None:
    session, binding = bound
    results = np.full((3, 2, 3, 40, 48), np.nan, np.float32)
    for shape_seed in range(3):
        batch = noise(shape_seed, 2, 3, 20, 24)
        binding.run("input", "output", batch, results[shape_seed])
    for seed, result in enumerate(results):  # none was overwritten by a later run
        expected = session.run(None, {"input": noise(seed, 2, 3, 20, 24)})[0]
        np.testing.assert_array_equal(result, expected)


def test_shapes_may_change(bound: tuple[ort.InferenceSession, Binding]) -> None:
    session, binding = bound
    for shape in [(2, 3, 20, 24), (1, 3, 20, 24), (1, 3, 30, 16), (2, 3, 20, 24)]:
        batch = noise(7, *shape)
        result = np.empty((shape[0], 3, 2 * shape[2], 2 * shape[3]), np.float32)
        binding.run("input", "output", batch, result)
        np.testing.assert_array_equal(result, session.run(None, {"input": batch})[0])


def test_a_part_of_a_slot_can_be_bound(bound: tuple[ort.InferenceSession, Binding]) -> None:
    session, binding = bound
    slot, result = noise(3, 4, 3, 16, 16), np.zeros((4, 3, 32, 32), np.float32)
    binding.run("input", "output", slot[1:3], result[1:3])
    np.testing.assert_array_equal(result[1:3], session.run(None, {"input": slot[1:3]})[0])
    assert not result[[0, 3]].any()


def test_threads_do_not_disturb_each_other(bound: tuple[ort.InferenceSession, Binding]) -> None:
    session, binding = bound
    results = np.zeros((40, 1, 3, 32, 32), np.float32)

    def run(seed: int) -> None:
        binding.run("input", "output", noise(seed, 1, 3, 16, 16), results[seed])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(40)))
    for seed, result in enumerate(results):
        expected = session.run(None, {"input": noise(seed, 1, 3, 16, 16)})[0]
        np.testing.assert_array_equal(result, expected)


def test_half_precision(tmp_path: Path) -> None:
    session = load(conv_model(tmp_path / "half.onnx", dtype="float16"))
    batch = noise(1, 1, 3, 16, 16).astype(np.float16)
    result = np.zeros((1, 3, 32, 32), np.float16)
    DeviceBinding(session, "cpu", 0).run("input", "output", batch, result)
    np.testing.assert_array_equal(result, session.run(None, {"input": batch})[0])


def test_wrong_shapes_are_told(bound: tuple[ort.InferenceSession, Binding]) -> None:
    _, binding = bound
    result = np.zeros((1, 3, 32, 32), np.float32)
    with pytest.raises(Exception, match="invalid dimensions for input"):
        binding.run("input", "output", noise(0, 1, 5, 16, 16), result)
