"""INT8: turns a float32 model into one whose convolutions ONNX Runtime computes in integers.

Static QDQ, unsigned 8-bit activations, signed 8-bit weights per output channel. What costs accuracy is
dealt with in this order: channels are equalised, ranges are clipped as far as it pays, weights are
rounded by their results, and convolutions that still harm most go back to float. Everything but
convolutions stays float anyway. Tiles decide, which are not those that are reported on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from srpipe.errors import InputError, ModelError, OutputError, SettingsError
from srpipe.io.model_probe import probe_model
from srpipe.io.processor import available_cores, saturates_sums
from srpipe.io.session import Session, Tensor
from srpipe.models.activations import look_inside
from srpipe.models.calibration import choose_tiles
from srpipe.models.equalize import equalize
from srpipe.models.float_convolutions import FloatSearch
from srpipe.models.graph import add_metadata, load_graph, metadata_of, save_graph
from srpipe.models.qdq import Graph, Range, Recipe, is_split, quantized_tensors, write_qdq
from srpipe.models.rounding import round_on_tiles
from srpipe.models.speed import compare_speeds
from srpipe.models.zoo import find_model
from srpipe.plan.model_info import ModelInfo

DEFAULT_TILES = 16
DEFAULT_TILE_PX = 128
LEAST_PSNR_DB = 45.0
"""What an INT8 model is to keep of its float32 model's output."""
LEAST_GAIN = 1.05
"""Below this ratio of speeds INT8 counts as no faster."""

_MARGIN_DB = 0.5  # other tiles than those that decide may be worse
_CLIPS = (1.0, 0.85, 0.7, 0.55)
_BEST_PSNR_DB = 120.0
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
    weight_bits: int
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

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self) | {"gain": self.gain, "is_faster": self.is_faster}


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
    _check_arguments(n_tiles, tile_size)
    path, goal = find_model(source), Path(target)
    _check_target(path, goal, overwrite)
    model = prepare_graph(str(path))
    info = probe_model(path)
    tiles = choose_tiles(images, info, n_tiles + n_tiles // 2, tile_size)
    shares = share_out(tiles)
    cores = available_cores()
    with TemporaryDirectory(prefix="srpipe-") as name:
        bench = _Bench(info, model, shares, cores, Path(name))
        final = bench.best(path, tiles[0])
        float_mp_s, int8_mp_s = compare_speeds([path, final.path], info, tiles[0], cores)
        psnr_db = bench.psnr_db(final.path, shares.checking)
        finished = onnx.load(final.path)
        n_integer, n_all = len(final.recipe.chosen), len(bench.convolutions)
        facts = _facts(info, model, final.recipe, psnr_db) | {
            "integer_convolutions": f"{n_integer} of {n_all}"
        }
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
        weight_bits=final.recipe.weight_bits,
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


@dataclass(frozen=True, slots=True)
class Shares:
    """Tiles by what they are for."""

    calibration: list[Tensor]
    deciding: list[Tensor]
    checking: list[Tensor]


def share_out(tiles: Sequence[Tensor]) -> Shares:
    """Two thirds for calibration, a sixth for deciding, a sixth for checking.

    Raises:
        InputError: fewer than two tiles.
    """
    if len(tiles) < 2:
        raise InputError(
            "the images hold a single tile, and calibrating and checking need two: give more or "
            "larger images, or a smaller tile size."
        )
    if len(tiles) < 6:
        return Shares([*tiles[::2]], [*tiles[1::2]], [*tiles[1::2]])
    rest = [tile for i, tile in enumerate(tiles) if i % 3 != 1]
    return Shares(rest, [*tiles[1::6]], [*tiles[4::6]])


@dataclass(frozen=True, slots=True)
class _Candidate:
    recipe: Recipe
    path: Path
    psnr_db: float


class _Bench:
    """One model on its tiles: builds INT8 versions and compares them with float32."""

    def __init__(
        self, info: ModelInfo, model: onnx.ModelProto, shares: Shares, cores: int, folder: Path
    ) -> None:
        graph = Graph(model)
        self.convolutions = [
            str(node.output[0]) for node in graph.nodes if graph.is_quantizable(node)
        ]
        if not self.convolutions:
            raise ModelError(
                f"{info.path} has no convolution with constant weights: nothing to quantise."
            )
        self._info, self._shares, self._cores, self._folder = info, shares, cores, folder
        self._model = equalize(model, self._peaks(model))
        self._graph = Graph(self._model)
        self._session = Session(info.path, "cpu", cores)
        self._weight_bits = 7 if saturates_sums() else 8
        self._last: tuple[Recipe, onnx.ModelProto] | None = None

    def best(self, source: Path, tile: Tensor) -> _Candidate:
        """The first form that is accurate enough, the fastest first; or else the most accurate."""
        made = []
        for recipe in self._forms(source, tile):
            made.append(self._make(recipe))
            if made[-1].psnr_db >= LEAST_PSNR_DB:
                return made[-1]
        return max(made, key=lambda candidate: candidate.psnr_db)

    def _forms(self, source: Path, tile: Tensor) -> list[Recipe]:
        """All convolutions in integers, with PReLUs split where that can be and not; fastest first."""
        chosen = frozenset(self.convolutions)
        splits = any(is_split(self._graph, node, chosen) for node in self._graph.nodes)
        if not splits:
            return [self._clipped(chosen, split=False)]
        recipes = [self._clipped(chosen, split=split) for split in (True, False)]
        paths = [self._folder / f"form-{i}.onnx" for i in range(len(recipes))]
        for path, recipe in zip(paths, recipes, strict=True):
            save_graph(write_qdq(self._model, recipe), path)
        _, *speeds = compare_speeds([source, *paths], self._info, tile, self._cores)
        return [recipes[i] for i in np.argsort(speeds)[::-1]]

    def _clipped(self, chosen: frozenset[str], *, split: bool) -> Recipe:
        """The recipe whose ranges are clipped as far as it pays."""
        return min((self._recipe(chosen, split, clip) for clip in _CLIPS), key=self._loss)

    def _make(self, recipe: Recipe) -> _Candidate:
        """As few float convolutions as the accuracy allows."""
        search = FloatSearch(self._model, recipe, self._loss, self._rounded_loss)
        recipe = search.run(10 ** (-(LEAST_PSNR_DB + _MARGIN_DB) / 10))
        path = self._folder / f"final-{recipe.split}.onnx"
        save_graph(self._rounded(recipe), path)
        return _Candidate(recipe, path, self.psnr_db(path, self._shares.deciding))

    def psnr_db(self, path: Path, tiles: Sequence[Tensor]) -> float:
        """A version against float32 on some tiles."""
        loss = self._mean_square(Session(str(path), "cpu", self._cores), tiles)
        return min(_BEST_PSNR_DB, -10 * math.log10(max(loss, 1e-30)))

    def _recipe(self, chosen: frozenset[str], split: bool, clip: float) -> Recipe:
        white = self._info.value_range
        ranges = {
            name: Range(min(low * clip, 0.0), max(high * clip, 0.0))
            for name, (low, high) in self._extremes.items()
        } | {self._info.input_name: Range(0.0, white)}  # so that 8-bit pixels are exact
        return Recipe(chosen=chosen, ranges=ranges, split=split, weight_bits=self._weight_bits)

    @cached_property
    def _extremes(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of every tensor that may be rounded."""
        found: dict[str, tuple[float, float]] = {}

        def see(name: str, values: Tensor) -> None:
            low, high = found.get(name, (0.0, 0.0))
            found[name] = min(low, float(values.min())), max(high, float(values.max()))

        names = self._possible_tensors()
        look_inside(self._model, names, self._shares.calibration, self._cores, see)
        return found

    def _possible_tensors(self) -> list[str]:
        """With some convolutions left float, others than before are rounded."""
        alone = [quantized_tensors(self._graph, {name}) for name in self.convolutions]
        return list(dict.fromkeys(name for names in alone for name in names))

    def _peaks(self, model: onnx.ModelProto) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def see(name: str, values: Tensor) -> None:
            peaks = np.abs(values).max(axis=(1, 2))
            found[name] = np.maximum(found[name], peaks) if name in found else peaks

        look_inside(model, self.convolutions, self._shares.calibration, self._cores, see)
        return found

    def _rounded(self, recipe: Recipe) -> onnx.ModelProto:
        if self._last is None or self._last[0] != recipe:
            calibration = self._shares.calibration
            integers = round_on_tiles(self._model, recipe, calibration, self._cores)
            self._last = recipe, write_qdq(self._model, recipe, integers)
        return self._last[1]

    def _loss(self, recipe: Recipe) -> float:
        return self._loss_of(write_qdq(self._model, recipe))

    def _rounded_loss(self, recipe: Recipe) -> float:
        return self._loss_of(self._rounded(recipe))

    def _loss_of(self, model: onnx.ModelProto) -> float:
        path = self._folder / "trial.onnx"
        save_graph(model, path)
        return self._mean_square(Session(str(path), "cpu", self._cores), self._shares.deciding)

    def _mean_square(self, session: Session, tiles: Sequence[Tensor]) -> float:
        """Mean squared difference from float32, of the value range squared."""
        white = self._info.value_range
        squares = [
            float(np.mean((self._result(session, tile) - self._result(self._session, tile)) ** 2))
            for tile in tiles
        ]
        return float(np.mean(squares)) / white**2

    def _result(self, session: Session, tile: Tensor) -> Tensor:
        names = [self._info.output_name]
        (result,) = session.run_several(self._info.input_name, names, tile)
        return np.clip(result, 0, self._info.value_range)


def _facts(
    info: ModelInfo, model: onnx.ModelProto, recipe: Recipe, psnr_db: float
) -> dict[str, str]:
    """Metadata: the source's, what was measured of it, and how it was quantised."""
    measured = {"scale": str(info.scale)}
    if info.multiple_px > 1:
        measured["size_multiple"] = str(info.multiple_px)
    if info.radius_px is not None:
        measured["receptive_radius_px"] = str(info.radius_px)
    return (
        measured
        | metadata_of(model)
        | {
            "name": f"{info.name}-int8",
            "quantization": "static QDQ, U8S8, weights per output channel",
            "weight_bits": str(recipe.weight_bits),
            "psnr_to_float32_db": f"{psnr_db:.1f}",
        }
    )


def _check_arguments(n_tiles: int, tile_size: int) -> None:
    if not 2 <= n_tiles <= _MAX_TILES:
        raise SettingsError(f"tiles is {n_tiles}: it must be 2 to {_MAX_TILES}.")
    if not 16 <= tile_size <= 1024:
        raise SettingsError(f"tile size is {tile_size}: it must be 16 to 1024 input pixels.")


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if target.suffix.lower() != ".onnx":
        raise OutputError(f"{target} does not end in .onnx: name the model to write so.")
    if not target.parent.is_dir():
        raise OutputError(f"folder {target.parent} does not exist: make it first.")
    if target.is_dir():
        raise OutputError(f"{target} is a folder: name a file.")
    if target.exists():
        if target.samefile(source):
            raise OutputError(f"{target} is the model itself: name another file.")
        if not overwrite:
            raise OutputError(
                f"{target} exists: name another file, or replace it with --overwrite."
            )
