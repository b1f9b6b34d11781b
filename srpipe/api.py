"""The Python interface: what the command line calls too."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from srpipe.errors import SettingsError
from srpipe.forks import note_work
from srpipe.io.job_place import strip_file_scheme
from srpipe.io.model_probe import probe_model, read_model_metadata
from srpipe.io.processor import available_cores
from srpipe.io.source import read_image_info
from srpipe.io.staging import local_ends
from srpipe.models.rewrite.verdict import find_graph, graph_info
from srpipe.models.zoo import bundled_models, find_model
from srpipe.plan.model_info import ModelInfo
from srpipe.plan.url import is_url
from srpipe.prepare import prepare, start_model
from srpipe.run import run_job
from srpipe.runtime.events import ProgressCallback, Report
from srpipe.runtime.warm import Warm
from srpipe.settings import (
    DEFAULT_BACKGROUND_LEVELS,
    DEFAULT_CHECKPOINT_EVERY_S,
    DEFAULT_MODEL,
    Blend,
    ChannelOrder,
    ColorManagement,
    Edges,
    Engine,
    NoDataWish,
    OnError,
    Region,
    Settings,
    Transfer,
    ValueRange,
)
from srpipe.slabs.on_ray import enhance_on_ray
from srpipe.slabs.whole import enhance_slab
from srpipe.stop import StopRequest
from srpipe.terminal import keep_standard_descriptors

if TYPE_CHECKING:
    from srpipe.tune.report import TuneReport

__all__ = [
    "available_cores",
    "bundled_models",
    "carry_out",
    "enhance",
    "find_model",
    "prepare",
    "probe_model",
    "read_image_info",
    "read_model_metadata",
    "start_model",
    "tune_model",
]

# As much work as tuning is for: enough to find out which graph is the fastest.
_MEGAPIXELS_TO_TUNE = 1000.0

PathLike = str | os.PathLike[str]


def enhance(
    src: PathLike,
    dst: PathLike,
    *,
    model: PathLike = DEFAULT_MODEL,
    tile_size: int | None = None,
    overlap: int | None = None,
    blend: Blend = "feather",
    batch_size: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    runners: int | None = None,
    memory_bytes: int | None = None,
    rewrite: bool = True,
    reuse: bool = True,
    device: str = "auto",
    transfer: Transfer = "auto",
    job_dir: PathLike | None = None,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
    engine: Engine = "auto",
    fresh: bool = False,
    checkpoint_every_s: float = DEFAULT_CHECKPOINT_EVERY_S,
    on_error: OnError = "stop",
    allow_untrusted: bool = False,
    output_name: str | None = None,
    value_range: ValueRange | None = None,
    black: float | None = None,
    white: float | None = None,
    nodata: NoDataWish = None,
    channel_order: ChannelOrder = "auto",
    stop: StopRequest | None = None,
    depth: int | None = None,
    outscale: float | None = None,
    region: Region | None = None,
    edges: Edges = "reflect",
    mask: PathLike | None = None,
    skip_background: bool = False,
    background_levels: int = DEFAULT_BACKGROUND_LEVELS,
    storage_options: Mapping[str, Mapping[str, Any]] | None = None,
    color_management: ColorManagement = "keep",
    address: str | None = None,
    slabs: int | None = None,
    slab: tuple[int, int] | None = None,
) -> Report:
    """Enhance one image file, tile by tile, within bounded memory.

    A run that was interrupted, in whatever way, goes on from its last checkpoint when the same
    request is made again, and gives the bytes that an undisturbed run gives.

    Depth, bands and colour profile of the output are those of the input, and its size is the input's
    times the model's scale, unless ``depth`` and ``outscale`` ask for others.

    Args:
        src: a TIFF, PNG, JPEG, WebP or HEIF file, 8 or 16 bits or float32: grey or RGB, with or
            without alpha, or as many bands as the model has channels. A URL that fsspec takes (``s3://``,
            ``https://`` …, extra ``[remote]``) is copied into the job's folder first.
        dst: the output; its ending chooses the format, and libvips options may follow it:
            ``out.tif[compression=deflate,tile,pyramid]``; ``.dzi`` (DeepZoom), ``.zarr`` and ``.raw``
            are formats too. It appears only when it is complete; at a URL, by an upload that is
            repeated with the request if it fails.
        model: a bundled model's name, or the path of an .onnx file.
        tile_size: side of a tile, input pixels. None: chosen to fit the model.
        overlap: input pixels two neighbouring tiles share. None: from the model's receptive radius.
        blend: ``feather``, ``mean`` or ``crop``.
        batch_size: tiles that go through the model together.
        workers: ONNX Runtime sessions, each a process of its own.
        threads: cores one session may use. None: all, shared among the workers.
        runners: runs of one session under way at once, on equal shares of its threads.
        memory_bytes: what the job may take in all. None: a share of what is free.
        rewrite: run a form of the model's graph that computes the same and is faster, if there is one.
        reuse: compute tiles of the same pixels once.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …; ``cuda:0,cuda:1`` gives each a worker.
        transfer: ``float`` converts batches before they go to the model, ``integer`` in its session,
            with the same result; ``auto`` is ``integer`` for 8 bits on CUDA devices.
        job_dir: folder for the job's own files. None: ``dst`` + ``.srpipe``, or, for a URL, a folder
            below ``~/.cache/srpipe/jobs`` (``$SRPIPE_CACHE/jobs``).
        progress: called with a :class:`ProgressEvent` from the calling thread.
        overwrite: replace ``dst`` if it exists.
        engine: ``serial`` runs all stages in the calling thread, ``threads`` each in a thread of
            this process, ``local`` each in a process of its own, ``ray`` in slabs on the nodes of a Ray
            cluster (extra ``[ray]``); ``auto``: by the number of tiles.
        fresh: start over, whatever the job folder holds.
        checkpoint_every_s: seconds between checkpoints; from the first on, each row of tiles ends with
            one too.
        on_error: ``fill`` goes on where the input cannot be read, with what could be decoded, and
            lists those parts in the report; ``stop`` fails.
        allow_untrusted: read formats too that libvips does not trust with files from strangers.
        output_name: of a model of several outputs, the one to take. None: the image of the largest
            scale.
        value_range: what black and white are in the model's numbers: ``(0, 255)``, ``(-1, 1)`` …
            None: what its metadata say, or ``(0, 1)``.
        black: the pixel value that is black to the model. None: what its metadata say, or the smallest
            of the image's type, 0 for floats.
        white: the pixel value that is white to the model, as 10000 is for Sentinel-2's reflectance;
            brighter pixels are kept. None: what its metadata say, or the largest of the image's type, 1
            for floats.
        nodata: the pixel value that means no data: such samples keep it, and the model sees the mean of
            those around them. None: what a TIFF says of itself (GDAL's tag); ``"none"``: there is none.
            In floats NaN and infinity mean no data too.
        channel_order: ``rgb`` or ``bgr``, for a model of three channels; ``auto``: what its metadata
            say, or ``rgb``.
        stop: lets a signal handler or another thread ask the run to stop.
        depth: bits of a sample of the output, 8 or 16. None: those of the input. The model's results
            are rounded once, to this depth.
        outscale: how many times as large as the input the output is on each axis, any number above 0;
            what the model gives is resized to that (Lanczos). None: the model's scale.
        region: left, top, width and height of the part to enhance, in pixels of the input as the file
            stores them; ``dst`` then holds that part alone. Its pixels are those of a run of the whole
            image; of a model whose results depend on the batch only with ``batch_size=1``. None: all.
        edges: what the model sees beyond the image's border, as far as it reaches: ``reflect``
            mirrors the image, ``replicate`` repeats its last pixels, ``wrap`` goes on with its opposite
            side, so that a texture that can be tiled still can. ``none``: what the model pads with by
            itself, zeros mostly, which leave a rim.
        mask: an image of the input's shape, of any size: what is white in it (255, or 1 where nothing
            is more) is enhanced, what is black resized plainly, with a soft border; tiles all black
            cost almost nothing.
        skip_background: resize tiles plainly that are background: those in which the values of no band
            lie further apart than ``background_levels``.
        background_levels: so many of 255.
        storage_options: fsspec's options for URLs, by protocol: ``{"s3": {"anon": True}}``. None: what
            fsspec's own configuration and the environment say.
        color_management: what becomes of a profile unlike sRGB. ``keep``: the output has it too, and
            the model sees 16-bit images of another tone curve (linear, gamma 1.8) under sRGB's, with
            their own primaries, so that no colour is lost. ``srgb``: it is converted to sRGB. ``off``:
            models see the numbers as they are.
        address: of a Ray cluster, ``host:port``. None: the one that this process is connected to,
            that ``$RAY_ADDRESS`` names, or that runs here; or else a new one of this machine alone.
        slabs: bands of rows that Ray's nodes compute apart. None: by rows of tiles and nodes.
        slab: number, from 1 on, and count: compute this slab alone, in the job folder, for a cluster
            without Ray. When all are done, :func:`assemble` makes ``dst`` of them.

    Returns:
        What was done: sizes, tiles, seconds per stage, megapixels per second.

    Raises:
        RequestError: the request cannot be carried out; nothing was begun.
        RunError: the run failed after it began; nothing is at ``dst``.
        Interrupted: ``stop`` asked for it.
    """
    begin_s = time.monotonic()
    settings = Settings(
        model=os.fspath(model),
        tile_size=tile_size,
        overlap=overlap,
        blend=blend,
        batch_size=batch_size,
        workers=workers,
        threads=threads,
        runners=runners,
        memory_bytes=memory_bytes,
        rewrite=rewrite,
        reuse=reuse,
        device=device,
        transfer=transfer,
        job_dir=None if job_dir is None else os.fspath(job_dir),
        overwrite=overwrite,
        engine=engine,
        fresh=fresh,
        checkpoint_every_s=checkpoint_every_s,
        on_error=on_error,
        allow_untrusted=allow_untrusted,
        output_name=output_name,
        value_range=value_range,
        black=black,
        white=white,
        nodata=nodata,
        channel_order=channel_order,
        depth=depth,
        outscale=outscale,
        region=region,
        edges=edges,
        mask=None if mask is None else os.fspath(mask),
        skip_background=skip_background,
        background_levels=background_levels,
        storage_options=storage_options,
        color_management=color_management,
        address=address,
        slabs=slabs,
        slab=slab,
    )
    return carry_out(
        os.fspath(src), os.fspath(dst), settings, progress, begin_s, stop or StopRequest()
    )


def carry_out(
    src: str,
    dst: str,
    settings: Settings,
    progress: ProgressCallback | None,
    begin_s: float,
    stop: StopRequest,
    started: tuple[str, ModelInfo] | None = None,
    warm: Warm | None = None,
) -> Report:
    """Prepare and run a job whose input and output are files or URLs.

    Raises:
        SrpipeError: as :func:`enhance` does.
    """
    note_work()
    keep_standard_descriptors()
    if settings.slab is not None:
        src, dst = strip_file_scheme(src), strip_file_scheme(dst)
        if is_url(src) or is_url(dst):
            raise SettingsError(
                "slab is for files that all machines see: copy what is behind a URL there first."
            )
        return enhance_slab(src, dst, settings, progress, stop)
    if is_url(src) and started is None:
        find_model(settings.model)  # before anything is downloaded for it
    with local_ends(src, dst, settings, stop) as ends:
        if settings.engine == "ray":
            report = enhance_on_ray(
                ends.src, ends.dst, ends.settings, progress, begin_s, stop, ends.deliver
            )
        else:
            plan = prepare(ends.src, ends.dst, ends.settings, started)
            report = run_job(plan, progress, begin_s, stop, warm, ends.deliver)
    return replace(report, input=ends.show(report.input), output=ends.show(report.output))


def tune_model(settings: Settings, *, sweep: bool = False) -> TuneReport:
    """Measure what runs a model best on this machine, and keep it for later jobs.

    Args:
        settings: model, device and memory; whatever else they fix is not varied.
        sweep: then measure all there is, and tell how far the choice is from the best.

    Raises:
        RequestError: the model cannot be used, or nothing fits into the memory.
        RunError: the model cannot be measured.
    """
    from srpipe.tune.report import tune_model as tune

    note_work()
    device, model = start_model(settings)
    graph = model
    if settings.rewrite and device == "cpu":
        graph = graph_info(model, find_graph(model, _MEGAPIXELS_TO_TUNE))
    return tune(graph, settings, device, available_cores(), model.path, sweep=sweep)
