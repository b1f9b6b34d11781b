"""Checks a request and decides everything about it, before anything is written."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from srpipe.errors import DeviceError, InputError, OutputError, RequestError
from srpipe.io.devices import is_available, resolve_device
from srpipe.io.input_metadata import left_out
from srpipe.io.job_folder import check_space
from srpipe.io.job_record import FINISHED_FILE, is_finished_output, read_kept
from srpipe.io.mask import read_mask_info
from srpipe.io.model_probe import probe_model
from srpipe.io.output_place import check_replaceable, refuse_existing
from srpipe.io.processor import available_cores
from srpipe.io.save_options import check_options
from srpipe.io.small_files import check_name
from srpipe.io.source import read_image_info, same_file
from srpipe.io.space import check_decoder_memory
from srpipe.io.tiff_pieces import check_length
from srpipe.models.rewrite.verdict import AS_IT_IS, Rewritten, find_graph, graph_info
from srpipe.models.zoo import find_model
from srpipe.plan.bands import bands_seen
from srpipe.plan.geometry import Rect
from srpipe.plan.grid import Grid
from srpipe.plan.image_info import band_names
from srpipe.plan.job import SERIAL_MAX_TILES, Plan, make_plan
from srpipe.plan.kept import Kept
from srpipe.plan.model_info import ModelInfo
from srpipe.plan.output import OutputSpec, companion, parse_output
from srpipe.settings import Settings
from srpipe.tune.job import tune_plan

logger = logging.getLogger(__name__)

_HOLD_NODATA = ("TIFF", "Zarr", "raw")


def prepare(
    src: str, dst: str, settings: Settings, started: tuple[str, ModelInfo] | None = None
) -> Plan:
    """Check a request and decide everything about it; nothing is written.

    Args:
        src: the input.
        dst: the output, options in brackets behind it.
        settings: what is asked for.
        started: device and model, as :func:`start_model` found them for the same model settings, for
            one of many images, which nothing is measured for; None: they are found out.

    Raises:
        RequestError: the request cannot be carried out.
    """
    src = _absolute(src, InputError)
    output = parse_output(dst)
    # Through a link, so that the job's files and the space check go where the output goes.
    output = replace(output, path=os.path.realpath(_absolute(output.path, OutputError)))
    if same_file(src, output.path):
        raise OutputError(f"input and output are the same file, {src}: write to another one.")
    # A link that was named may be followed; one that stands where a job's folder would be, not.
    job_dir = os.path.realpath(settings.job_dir) if settings.job_dir else f"{output.path}.srpipe"
    written = {Path(output.path), Path(companion(output.path) or output.path)}
    for place in (Path(src), Path(job_dir)):
        if written & {place, *place.parents}:
            raise OutputError(f"{place} lies in the output {output.path}: choose another place.")
    for folder in (os.path.dirname(output.path), os.path.dirname(src)):
        if os.path.realpath(folder) == os.path.realpath(job_dir):
            raise OutputError(f"{job_dir} holds the input or the output: choose another --job-dir.")
    image = read_image_info(
        src,
        allow_untrusted=settings.allow_untrusted,
        color_management=settings.color_management,
        nodata=settings.nodata,
    )
    if image.loader.startswith("tiffload") and settings.on_error != "fill":
        check_length(src)
    check_decoder_memory(src, image.decoder_bytes)
    _check_output_place(output, settings, job_dir)
    if image.pages > 1:
        logger.warning("%s has %d pages: only the first is enhanced.", src, image.pages)
    for remark in image.remarks:
        logger.warning("%s %s.", src, remark)
    if image.converted_from:
        logger.warning("%s is %s: its result is sRGB.", src, image.converted_from)
    lost = left_out(image, output)
    if lost:
        logger.warning("%s will not have all that %s tells: %s.", output.path, src, ", ".join(lost))
    if image.nodata is not None and output.format.name not in _HOLD_NODATA:
        logger.warning("%s does not say which value means no data, which %s does (%g): write a .tif.",
                       output.path, src, image.nodata)  # fmt: skip
    kept = None if settings.fresh else read_kept(Path(job_dir))
    device, model = started or start_model(settings, kept)
    cores = available_cores()
    resized = [i for i in range(bands_seen(image, model), image.bands) if i != image.alpha_band]
    if resized:
        names = band_names(resized)
        logger.warning("%s: %s only resized, since the model does not see it.", src, names)
    mask = None
    if settings.mask is not None:
        part = Rect(*settings.region) if settings.region else None
        mask = read_mask_info(_absolute(settings.mask, InputError), image.size, part)

    def plan_for(settings: Settings, device: str, grid: Grid | None = None) -> Plan:
        return make_plan(
            settings, image, model, output, device=device, cores=cores, job_dir=job_dir, grid=grid,
            mask=mask,
        )  # fmt: skip

    def plan_whole(settings: Settings, device: str) -> Plan:
        whole, anywhere = replace(settings, region=None), parse_output("whole.v")
        return make_plan(
            whole, image, model, anywhere, device=device, cores=cores, job_dir=job_dir, mask=mask
        )

    if kept is not None and kept.model_sha256 == model.sha256:
        graph = Rewritten(kept.rewrites, kept.graph_sha256)
        if settings.memory_bytes is not None:
            logger.warning("The job goes on with the tiles it began with, whatever --memory says.")
        settings = kept.complete(settings, cores)
        plan = plan_for(settings, device, kept.grid_for(settings, image.size))
        check_options(plan.output, plan.written)
    else:
        plan = plan_for(settings, device)
        check_options(plan.output, plan.written)
        if not os.path.exists(job_dir):
            check_space(plan)  # before anything is measured for it
        # What is chosen for a part is what is chosen for the whole, or its pixels would be others.
        whole_for = plan_for if settings.region is None else plan_whole
        whole = whole_for(settings, device)
        graph = _choose_graph(whole, settings, measure=started is None)
        runs = graph_info(model, graph)
        plan = tune_plan(whole, runs, settings, whole_for, cores, measure=started is None)
        if settings.region is not None:
            plan = plan_for(Kept.of(plan).complete(settings, cores), plan.device)
    if settings.rewrite and plan.device == "cpu":
        plan = replace(plan, rewrites=graph.rewrites, graph_sha256=graph.sha256)
    return plan


def _choose_graph(plan: Plan, settings: Settings, *, measure: bool) -> Rewritten:
    """Which graph of its model a new job runs."""
    if not settings.rewrite or plan.on_gpu:
        return AS_IT_IS
    tiles = plan.grid.n_tiles
    megapixels = tiles * plan.grid.tile.megapixels if measure and tiles > SERIAL_MAX_TILES else 0.0
    return find_graph(plan.model, megapixels)


def start_model(settings: Settings, kept: Kept | None = None) -> tuple[str, ModelInfo]:
    """The device that works, that of an earlier run if it is there, and the model as it is there.

    Raises:
        ModelError, DeviceError: there is none, or it cannot be used.
    """
    device = resolve_device(settings.device)
    if kept is not None and settings.device == "auto" and is_available(kept.device):
        device = kept.device
    path = os.path.abspath(find_model(settings.model))
    probe = partial(
        probe_model, path, value_range=settings.value_range, output_name=settings.output_name
    )
    try:
        return device, probe(device.partition(",")[0])
    except DeviceError as error:
        if settings.device != "auto" or device == "cpu":
            raise
        logger.warning("%s Going on with the CPU.", error)
        return "cpu", probe("cpu")


def _absolute(path: str, error: type[RequestError]) -> str:
    check_name(path, error)
    return os.path.abspath(path)


def _check_output_place(output: OutputSpec, settings: Settings, job_dir: str) -> None:
    path = Path(output.path)
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): name another.") from None
    check_replaceable(output)
    # A crash may have come after the output was put in place and before its job folder was gone.
    if not settings.overwrite and not is_finished_output(Path(job_dir), output.path):
        # Or a companion was in place, and the output not yet.
        moved = os.path.exists(os.path.join(job_dir, FINISHED_FILE))
        refuse_existing(output.path, with_companion=not moved)
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist: make it first.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {path.parent} cannot be written to: check its permissions.")
