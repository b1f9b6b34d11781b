"""INT8: turns a float32 model into one whose convolutions ONNX Runtime computes in integers.

Static QDQ, unsigned 8-bit activations, signed 7-bit weights per output channel. Everything but
convolutions stays float. How: :mod:`srpipe.models.qdq` and :mod:`srpipe.models.int8_search`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from srpipe.errors import ModelError, OutputError, SettingsError
from srpipe.forks import note_work
from srpipe.io.model_probe import probe_model
from srpipe.io.processor import available_cores
from srpipe.models.calibration import choose_tiles, share_out
from srpipe.models.graph import add_metadata, check_target, load_graph, metadata_of, save_graph
from srpipe.models.int8_search import LEAST_PSNR_DB, Workbench
from srpipe.models.qdq import WEIGHT_BITS
from srpipe.models.speed import compare_speeds
from srpipe.models.zoo import find_model
from srpipe.plan.model_info import ModelInfo

DEFAULT_TILES = 16
DEFAULT_TILE_PX = 128
LEAST_GAIN = 1.05
"""Below this ratio of speeds INT8 counts as no faster."""

_OPSET = 13  # scales per channel
_IR_VERSION = 8
_MAX_TILES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeReport:
    """What became of a model, and what it gains and loses."""

    source: str
    target: str
    calibration_tiles: int
    check_tiles: int
    """Those that ``psnr_db`` was measured on; none of them was used before."""
    tile_px: tuple[int, int]
    """Width and height."""
    integer_convolutions: int
    float_convolutions: int
    split_prelu: bool
    """PReLUs are split channels (see :mod:`srpipe.models.qdq`)."""
    psnr_db: float
    """INT8 against float32 output, of the whole value range, 120 at most."""
    float_mp_s: float
    """Megapixels of input a second."""
    int8_mp_s: float
    source_bytes: int
    target_bytes: int

    @property
    def gain(self) -> float:
        """INT8 speed over float32 speed."""
        return self.int8_mp_s / self.float_mp_s

    @property
    def is_faster(self) -> bool:
        """Whether INT8 is worth its loss on this machine."""
        return self.gain >= LEAST_GAIN

    @property
    def is_accurate(self) -> bool:
        """Whether ``psnr_db`` reaches :data:`LEAST_PSNR_DB`."""
        return self.psnr_db >= LEAST_PSNR_DB

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        judged = ("gain", "is_faster", "is_accurate")
        return asdict(self) | {name: getattr(self, name) for name in judged}


def quantize_model(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    *,
    n_tiles: int = DEFAULT_TILES,
    tile_size: int = DEFAULT_TILE_PX,
    overwrite: bool = False,
) -> QuantizeReport:
    """Write an INT8 version of a model, calibrated on images like those it will see.

    Args:
        source: a bundled model's name, or the path of an .onnx file.
        target: the .onnx file to write.
        images: files to take tiles from.
        n_tiles: tiles to calibrate on; half as many more are taken for deciding and checking.
        tile_size: side of a tile, input pixels, for these and for measuring speed.
        overwrite: replace ``target`` if it exists.

    Raises:
        ModelError: not a float32 image-to-image model, quantised already, or without convolutions.
        InputError: an image cannot be read, or all hold less than two tiles.
        OutputError: ``target`` exists, or cannot be written.
        SettingsError: an argument is out of range.
        InferenceError: the model failed on a tile.
    """
    note_work()
    _check_arguments(n_tiles, tile_size)
    path, goal = find_model(source), Path(target)
    if goal.exists() and goal.samefile(path):
        raise OutputError(f"{goal} is the model itself: name another file.")
    check_target(goal, overwrite=overwrite)
    model = prepare_graph(str(path))
    info = probe_model(path)
    tiles = choose_tiles(images, info, n_tiles + n_tiles // 2, tile_size)
    shares = share_out(tiles)
    cores = available_cores()
    with TemporaryDirectory(prefix="srpipe-") as name:
        bench = Workbench(info, model, shares, cores, Path(name))
        final = bench.best(path, tiles[0])
        float_mp_s, int8_mp_s = compare_speeds([path, final.path], info, tiles[0], cores)
        psnr_db = bench.psnr_db(final.path, shares.checking)
        finished = onnx.load(final.path)
        n_integer, n_all = len(final.recipe.chosen), len(bench.convolutions)
        facts = _facts(info, model, psnr_db) | {"integer_convolutions": f"{n_integer} of {n_all}"}
        add_metadata(finished, facts)
        save_graph(finished, goal)
    height, width = tiles[0].shape[2:] if info.layout == "NCHW" else tiles[0].shape[1:3]
    return QuantizeReport(
        source=str(path),
        target=str(goal),
        calibration_tiles=len(shares.calibration),
        check_tiles=len(shares.checking),
        tile_px=(width, height),
        integer_convolutions=n_integer,
        float_convolutions=n_all - n_integer,
        split_prelu=final.recipe.split,
        psnr_db=psnr_db,
        float_mp_s=float_mp_s,
        int8_mp_s=int8_mp_s,
        source_bytes=info.file_bytes,
        target_bytes=goal.stat().st_size,
    )


def prepare_graph(path: str) -> onnx.ModelProto:
    """A model as the rest wants it: opset 13 or later, constants as initializers.

    Raises:
        ModelError: not float32, quantised already, or too old to convert.
    """
    model = load_graph(path)
    kinds = {node.op_type for node in model.graph.node}
    if any("Quantize" in kind or "Integer" in kind or "QLinear" in kind for kind in kinds):
        raise ModelError(f"{path} is quantised already: use the float32 model it was made from.")
    if any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer):
        raise ModelError(f"{path} has float16 weights: quantise the float32 model instead.")
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _OPSET)
        except Exception as error:  # the converter's exceptions share no base class
            raise ModelError(
                f"{path} is of opset {opset}, and cannot be converted to {_OPSET} "
                f"({' '.join(str(error).split())[:200]}): export it again."
            ) from None
    model.ir_version = max(model.ir_version, _IR_VERSION)
    constants = [
        node
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    ]
    for node in constants:
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        model.graph.node.remove(node)
    return model


def _facts(info: ModelInfo, model: onnx.ModelProto, psnr_db: float) -> dict[str, str]:
    """Metadata: the source's, what was measured of it, and how it was quantised."""
    measured = {"scale": str(info.scale)}
    if info.multiple_px > 1:
        measured["size_multiple"] = str(info.multiple_px)
    if info.radius_px is not None:
        measured["receptive_radius_px"] = str(info.radius_px)
    told = metadata_of(model)
    told.pop("halo_px", None)  # rounding carries differences farther than float32 does
    return (
        measured
        | told
        | {
            "name": f"{info.name}-int8",
            "quantization": "static QDQ, U8S8, weights per output channel",
            "weight_bits": str(WEIGHT_BITS),
            "psnr_to_float32_db": f"{psnr_db:.1f}",
        }
    )


def _check_arguments(n_tiles: int, tile_size: int) -> None:
    if not 2 <= n_tiles <= _MAX_TILES:
        raise SettingsError(f"tiles is {n_tiles}: it must be 2 to {_MAX_TILES}.")
    if not 16 <= tile_size <= 1024:
        raise SettingsError(f"tile size is {tile_size}: it must be 16 to 1024 input pixels.")
