from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srpipe.errors import OutputError, SettingsError
from srpipe.plan.fingerprint import Fingerprint, differences, fingerprint
from srpipe.plan.geometry import Size
from srpipe.plan.job import Plan
from srpipe.plan.memory import count
from srpipe.settings import Settings
from tests.factories import make_test_plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_size": 0}, "tile_size is 0"),
        ({"tile_size": -5}, "tile_size is -5"),
        ({"tile_size": 10**9}, "tile_size is 1000000000"),
        ({"overlap": -1}, "overlap is -1"),
        ({"tile_size": 64, "overlap": 32}, "half of the tile size"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"workers": 10**6}, "workers is 1000000"),
        ({"threads": 0}, "threads is 0"),
        ({"blend": "smooth"}, "feather, mean, crop"),
        ({"tile_size": 2.5}, "whole number"),
        ({"batch_size": True}, "whole number"),
        ({"model": ""}, "model is empty"),
        ({"device": 0}, "device must be a text such as 'cuda:0', not 0"),
        ({"transfer": "uint8"}, "auto, float, integer"),
        ({"value_range": (1, 0)}, r"value range \(1, 0\) .* the lower first"),
        ({"value_range": (0, 0)}, "the lower first"),
        ({"value_range": (0, float("nan"))}, "must be two numbers"),
        ({"value_range": (0, float("inf"))}, "within 65536 of 0"),
        ({"value_range": (0, 1, 2)}, "must be two numbers"),
        ({"value_range": "0,1"}, "must be two numbers"),
        ({"value_range": "01"}, "must be two numbers"),
        ({"value_range": (65535.999, 65536)}, "well apart"),
        ({"value_range": (0, 1e-45)}, "well apart"),
        ({"white": True}, "white is True: it must be a number"),
        ({"white": float("inf")}, "white is inf"),
        ({"black": "x"}, "black is 'x': it must be a number"),
        ({"nodata": "nothing"}, "nodata is 'nothing'"),
        ({"channel_order": "rbg"}, "auto, rgb, bgr"),
    ],
)
def test_absurd_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(**changes)  # type: ignore[arg-type]


def test_half_of_the_default_tile_is_too_much(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="overlap 128 is half of the tile size 256"):
        make_test_plan(tmp_path, overlap=128)


def test_tile_size_must_fit_the_models_multiple(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="use 192 or 256"):
        make_test_plan(tmp_path, model={"multiple_px": 64}, tile_size=250)


def test_overlap_must_leave_a_stride_of_the_multiple(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="whole multiple of 64"):
        make_test_plan(tmp_path, model={"multiple_px": 64}, tile_size=64, overlap=8)


def test_fixed_size_and_batch_are_the_models(tmp_path: Path) -> None:
    model = {"height_px": 64, "width_px": 96, "batch": 4}
    plan = make_test_plan(tmp_path, model=model)
    assert plan.grid.tile == Size(96, 64)
    assert plan.batch_size == 4
    with pytest.raises(SettingsError, match="takes only a width of 96"):
        make_test_plan(tmp_path, model=model, tile_size=64)
    with pytest.raises(SettingsError, match="takes only batches of 4"):
        make_test_plan(tmp_path, model=model, batch_size=2)


def test_default_overlap_follows_the_radius(tmp_path: Path) -> None:
    image = {"size": Size(2000, 2000)}
    assert make_test_plan(tmp_path, image=image, model={"radius_px": 6}).grid.x.overlap_px >= 16
    near = make_test_plan(tmp_path, image=image, model={"radius_px": 1})
    far = make_test_plan(tmp_path, image=image, model={"radius_px": None})
    assert near.redundancy < far.redundancy
    assert far.grid.x.overlap_px >= 64


def test_formats_are_checked_against_the_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="70000x200"):
        make_test_plan(
            tmp_path, image={"size": Size(35000, 100)}, model={"scale": 2}, output="o.jpg"
        )


def test_the_number_of_tiles_chooses_the_engine(tmp_path: Path) -> None:
    for side_px, engine in ((100, "serial"), (600, "threads"), (4000, "local")):
        assert make_test_plan(tmp_path, image={"size": Size(side_px, side_px)}).engine == engine
    assert make_test_plan(tmp_path, workers=2).engine == "local"
    assert make_test_plan(tmp_path, engine="threads").engine == "threads"


def test_no_more_runners_and_slots_than_there_are_batches(tmp_path: Path) -> None:
    plan = make_test_plan(
        tmp_path, engine="threads", cores=16, tile_size=160, overlap=20, reuse=False
    )
    assert plan.grid.n_tiles == 4
    assert (plan.runners, plan.run_threads) == (4, 4)
    assert plan.slot_counts.result == 5


def test_slots_do_not_grow_with_the_image(tmp_path: Path) -> None:
    narrow, wide, wider = (
        make_test_plan(tmp_path, image={"size": Size(side, side)}, tile_size=512)
        for side in (16_384, 32_768, 400_000)
    )
    counts = [plan.slot_counts.result for plan in (narrow, wide, wider)]
    assert counts[0] > counts[1] == counts[2] == wide.slot_counts.batch + 1 == 5
    assert wider.slot_bytes <= wide.slot_bytes * 1.2 <= narrow.slot_bytes * 1.2


def test_results_are_used_again_only_where_companions_do_not_count(tmp_path: Path) -> None:
    exact, inexact = {"batch_exact": True}, {"batch_exact": False}
    for model, batch_size, reuse, expected in (
        (exact, 4, True, True), (exact, 4, False, False),
        (inexact, 4, True, False), (inexact, 1, True, True),
    ):  # fmt: skip
        plan = make_test_plan(tmp_path, model=model, batch_size=batch_size, reuse=reuse)
        assert plan.reuse == expected
        counts = plan.slot_counts
        assert (counts.reserved > 0) == expected
        assert counts.result - counts.reserved >= counts.batch


def test_only_seams_are_float(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path, image={"size": Size(32768, 32768)})
    assert plan.pixels_bytes == 65536**2 * 3
    assert plan.seam_shapes.n_bytes < 0.05 * plan.pixels_bytes
    assert count(plan.seam_shapes.columns) > 0


def test_threads_are_shared_among_workers(tmp_path: Path) -> None:
    assert make_test_plan(tmp_path, cores=8, workers=2).threads == 4
    assert make_test_plan(tmp_path, cores=1, workers=2).threads == 1
    assert make_test_plan(tmp_path, device="cuda", engine="local").runners == 1


def test_every_device_gets_a_worker(tmp_path: Path) -> None:
    large = {"size": Size(4000, 4000)}
    two = make_test_plan(tmp_path, image=large, device="cuda:0,cuda:3")
    assert (two.workers, two.devices, two.runners, two.batch_size) == (
        2,
        ("cuda:0", "cuda:3"),
        1,
        8,
    )
    assert make_test_plan(tmp_path, image=large, device="cuda:0,cuda:3", workers=4).workers == 4
    assert make_test_plan(tmp_path, image=large, device="cuda:0").workers == 1
    # As many as there are batches: nine tiles are two.
    small = make_test_plan(tmp_path, image={"size": Size(700, 700)}, device="cuda:0,cuda:1,cuda:2")
    assert (small.grid.n_tiles, small.workers) == (9, 2)
    with pytest.raises(SettingsError, match="workers is 1, but 2 devices are named"):
        make_test_plan(tmp_path, image=large, device="cuda:0,cuda:3", workers=1)


def test_eight_bits_travel_as_integers_to_cuda_devices(tmp_path: Path) -> None:
    for device, dtype, transfer, expected in [
        ("cpu", "uint8", "auto", "float32"),
        ("cuda:0", "uint8", "auto", "uint8"),
        ("tensorrt:0,tensorrt:1", "uint8", "auto", "uint8"),
        ("cuda:0", "uint16", "auto", "float32"),
        ("cuda:0", "uint16", "integer", "uint16"),
        ("cuda:0", "uint8", "float", "float32"),
        ("cpu", "uint8", "integer", "uint8"),
        ("migraphx:0", "uint8", "auto", "float32"),
    ]:
        plan = make_test_plan(tmp_path, image={"dtype": dtype}, device=device, transfer=transfer)
        assert plan.batch_dtype == expected
    # Luma is computed before the model, and no integer.
    luma = make_test_plan(tmp_path, model={"channels": 1}, device="cuda:0")
    assert luma.batch_dtype == "float32"


def test_what_counts_for_the_result(tmp_path: Path) -> None:
    """How batches travel never counts; how large they are does on a GPU."""

    def facts(**changes: Any) -> Fingerprint:
        image = {"size": Size(4000, 4000)}
        return fingerprint(make_test_plan(tmp_path, image=image, **changes), {})

    assert facts(transfer="integer") == facts(transfer="float") == facts(batch_size=3)
    assert facts(device="cuda:0") == facts(device="cuda:1", transfer="float")
    assert facts(device="cuda:0", batch_size=2) != facts(device="cuda:0", batch_size=4)
    assert facts(device="cuda:0") != facts()


def test_value_ranges_of_any_numbers_become_floats() -> None:
    for given in ((0, 255), [0.0, 255.0], np.array([0, 255]), (np.float32(0), np.float32(255))):
        kept = Settings(value_range=given).value_range
        assert kept == (0.0, 255.0)
        assert [type(number) for number in kept] == [float, float]


def test_fingerprint_knows_the_model_by_file_and_content(tmp_path: Path) -> None:
    plain, told = (
        fingerprint(make_test_plan(tmp_path, model={"name": name}), {}) for name in ("m", "fancy")
    )
    assert plain == told
    other = fingerprint(make_test_plan(tmp_path, model={"sha256": "1" * 64}), {})
    assert differences(plain, other) == [f"model: m {'0' * 16}, now m {'1' * 16}"]


def test_default_overlap_follows_the_halo_before_the_radius(tmp_path: Path) -> None:
    def plan(**model: int | str | None) -> Plan:
        facts = {"radius_px": 30, "halo_from": "measured"} | model
        return make_test_plan(
            tmp_path, image={"size": Size(2000, 2000)}, model=facts, tile_size=256
        )

    for halo_px in (2, 6, 9, 18, 30):
        measured = plan(halo_px=halo_px)
        assert 2 * halo_px + 4 <= measured.grid.x.overlap_px <= 2 * halo_px + 4 + 8
        assert measured.trim_px[0] >= halo_px
        assert 2 * measured.trim_px[0] < measured.grid.x.overlap_px
    balanced = plan(halo_px=8, halo_from="balanced")
    assert balanced.grid.x.overlap_px in range(32, 40)
    assert balanced.trim_px[0] in (8, 9)
    unknown = plan(halo_px=None, halo_from=None)
    assert unknown.grid.x.overlap_px >= 64
    on_lattice = plan(halo_px=5, multiple_px=16)
    assert on_lattice.grid.x.overlap_px % 16 == 0
    assert on_lattice.grid.x.overlap_px >= 14


def test_an_asked_for_overlap_is_trimmed_by_the_halo(tmp_path: Path) -> None:
    image, model = {"size": Size(2000, 2000)}, {"halo_px": 10, "halo_from": "measured"}
    for overlap, trim_px in ((12, 3), (20, 10), (24, 10), (64, 16)):
        plan = make_test_plan(tmp_path, image=image, model=model, tile_size=256, overlap=overlap)
        assert plan.grid.x.overlap_px - overlap < 8
        assert abs(plan.trim_px[0] - trim_px) <= 1


def test_depth_and_outscale_decide_what_is_checked_and_reserved(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path, depth=16, outscale=1.51, output="o.raw")
    assert str(plan.canvas_size) == "600x400"
    assert str(plan.output_size) == "453x302"
    assert plan.pixels_bytes == 600 * 400 * 3 * 2
    assert plan.output_bytes == 453 * 302 * 3 * 2
    assert plan.finished_rows_px(plan.grid.n_tiles) == 400
    assert make_test_plan(tmp_path, outscale=2.0).outscale is None
    with pytest.raises(OutputError, match="65535 pixels on a side"):
        make_test_plan(tmp_path, outscale=300, output="o.jpg")
    make_test_plan(tmp_path, image={"size": Size(40000, 10)}, outscale=1.6, output="o.jpg")
    with pytest.raises(OutputError, match="--depth 8"):
        make_test_plan(tmp_path, depth=16, output="o.jpg")
    make_test_plan(tmp_path, image={"dtype": "uint16"}, depth=8, output="o.jpg")
