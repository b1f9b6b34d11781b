from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from srpipe.io.model_probe import probe_model
from srpipe.io.session import Session
from srpipe.models.halo import AIM_LEVELS, Halo, choose_halo, measure_halo
from srpipe.models.sample import read_photograph
from srpipe.models.seams import EXACT_LEVELS, measure_seams
from srpipe.models.zoo import bundled_models
from srpipe.plan.geometry import Size
from tests.conftest import photograph_pixels
from tests.ecosystem_models import in_bgr, in_other_numbers
from tests.factories import make_test_plan
from tests.models.test_seams import global_model
from tests.onnx_models import conv_model, save


def measured(path: Path) -> Halo | None:
    return measure_halo(probe_model(path), Session(str(path), "cpu", 1))


def blur_model(path: Path, decay: float, layers: int, dilation: int = 1) -> Path:
    """A chain of 3x3 convolutions that spreads a pixel over ``layers`` * ``dilation`` pixels each way.

    A step to the side weighs ``decay`` times as much as none.
    """
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    for channel in range(3):
        kernel[channel, channel] = np.outer([decay, 1, decay], [decay, 1, decay])
    kernel /= kernel[0, 0].sum()
    nodes = [
        helper.make_node(
            "Conv",
            [f"c{i}" if i else "input", "w"],
            [f"c{i + 1}"],
            pads=[dilation] * 4,
            dilations=[dilation] * 2,
        )
        for i in range(layers)
    ]
    nodes.append(helper.make_node("Identity", [f"c{layers}"], ["output"]))
    return save(path, nodes, [numpy_helper.from_array(kernel, "w")], ["n", 3, "h", "w"])


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_tell_what_is_measured(name: str) -> None:
    path = bundled_models()[name]
    info = probe_model(path)
    halo = measured(path)
    assert info.halo_from == "metadata"
    assert halo == Halo(info.halo_px or 0, exact=True)


@pytest.mark.parametrize("name", bundled_models())
def test_the_default_overlap_keeps_seams_below_half_a_level(name: str) -> None:
    """Through the real plan and canvas, on another part of the photograph than the measured one."""
    info = probe_model(bundled_models()[name])
    report = measure_seams(info, photograph_pixels(300, 300), tile_size=128)
    assert report.seam_class == "exact"
    assert report.largest_levels <= EXACT_LEVELS
    assert report.overlap_px >= 2 * (info.halo_px or 0) + 4


def test_the_halo_is_no_larger_than_it_must_be(tmp_path: Path) -> None:
    """Of a net that could reach 12 pixels."""
    path = blur_model(tmp_path / "m.onnx", 0.02, layers=12)
    halo = measured(path)
    assert halo is not None
    assert halo.exact
    assert 2 <= halo.px < 6
    info = probe_model(path)
    assert (info.halo_px, info.halo_from) == (halo.px, "measured")
    picture = photograph_pixels(300, 300)
    enough = measure_seams(info, picture, tile_size=96)
    assert enough.seam_class == "exact"
    less = measure_seams(info, picture, tile_size=96, overlap=halo.px // 2)
    assert less.largest_levels > AIM_LEVELS


def test_a_net_of_long_reach_gets_a_feathered_overlap(tmp_path: Path) -> None:
    path = blur_model(tmp_path / "m.onnx", 1.0, layers=25, dilation=4)
    assert measured(path) == Halo(16, exact=False)
    info = probe_model(path)
    assert info.halo_from == "balanced"
    picture = photograph_pixels(400, 400)
    default = measure_seams(info, picture, tile_size=192)
    assert default.overlap_px == 64
    half = measure_seams(info, picture, tile_size=192, overlap=32)
    assert default.grid.at_seams.mean_levels < half.grid.at_seams.mean_levels


def test_where_twice_the_overlap_gains_under_1_db_it_is_enough() -> None:
    for levels, overlap_px in (
        ((9.0, 9.0, 9.0, 3.0, 1.0), 64),
        ((9.0, 9.0, 4.0, 1.9, 1.9), 32),
        ((9.0, 1.5, 1.5, 0.74, 0.74), 16),
    ):
        worst = np.repeat(levels, (4, 4, 8, 16, 32))
        assert choose_halo(worst, worst**2) == Halo(overlap_px // 4, exact=False)
    flat = np.repeat((9.0, 1.0), (8, 56))
    assert choose_halo(flat, flat**2) is None


def test_the_smallest_halo_that_keeps_to_the_aim() -> None:
    worst = np.zeros(64)
    assert choose_halo(worst, worst) == Halo(0, exact=True)
    worst[:5] = [9, 3, 0.05, 1, 0.2]
    assert choose_halo(worst, worst**2) == Halo(5, exact=True)
    worst[29] = 0.2
    assert choose_halo(worst, worst**2) == Halo(30, exact=True)


def test_global_statistics_have_no_halo(tmp_path: Path) -> None:
    info = probe_model(global_model(tmp_path / "m.onnx"))
    assert (info.halo_px, info.halo_from, info.radius_px) == (None, None, None)
    plan = make_test_plan(
        tmp_path, image={"size": Size(2000, 2000)}, model={"halo_px": None, "radius_px": None}
    )
    assert plan.grid.x.overlap_px >= 64


def test_fixed_sizes_have_no_whole_to_compare_with(tmp_path: Path) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", height=64, width=64))
    assert info.halo_px is None
    assert info.radius_px is not None


def test_a_lattice_too_wide_to_measure(tmp_path: Path) -> None:
    path = conv_model(tmp_path / "m.onnx", multiple=128, scale=1, layers=1)
    assert probe_model(path).halo_px is None
    path = conv_model(tmp_path / "n.onnx", multiple=64, scale=1, layers=1)
    info = probe_model(path)
    assert info.halo_px is None or info.halo_px <= 64


@pytest.mark.parametrize(
    "facts",
    [{"channels": 1}, {"channels": 5}, {"layout": "NHWC"}, {"batch": 2}, {"dtype": "float16"}],
    ids=str,
)
def test_any_kind_of_model_is_measured(tmp_path: Path, facts: dict[str, int | str]) -> None:
    halo = measured(conv_model(tmp_path / "m.onnx", layers=3, **facts))  # type: ignore[arg-type]
    assert halo is not None
    assert halo.exact
    assert 1 <= halo.px <= 3


def test_value_range_and_channel_order_do_not_matter(tmp_path: Path) -> None:
    plain = conv_model(tmp_path / "plain.onnx", layers=4)
    other = in_other_numbers(plain, tmp_path / "other.onnx", (-1.0, 1.0))
    other = in_bgr(other, tmp_path / "bgr.onnx")
    info = probe_model(other, value_range=(-1.0, 1.0))
    assert info.halo_px == probe_model(plain).halo_px


def test_the_photograph_has_as_many_bands_as_asked_for() -> None:
    for bands in (1, 3, 5):
        pixels = read_photograph(bands)
        assert pixels.shape == (192, 192, bands)
        assert pixels.std() > 30
