"""Whole folders: what is done is passed over, what fails holds nobody up, all is written down."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from srpipe.api import PathLike
from srpipe.at_once import run_at_once
from srpipe.enhancer import Enhancer, images_at_once
from srpipe.errors import (
    InputError,
    Interrupted,
    JobError,
    OutputError,
    SettingsError,
    SrpipeError,
)
from srpipe.forks import note_work
from srpipe.io.identity import identify_file
from srpipe.io.job_lock import is_locked
from srpipe.manifest import FileOutcome, Manifest, Status, written
from srpipe.plan.output import FORMATS
from srpipe.plan.url import is_url, redact_url
from srpipe.ray_enhancer import RayEnhancer
from srpipe.run import software_versions
from srpipe.settings import DEFAULT_MODEL, Settings
from srpipe.stop import StopRequest

logger = logging.getLogger(__name__)

AnyEnhancer = Enhancer | RayEnhancer

MANIFEST_FILE = "srpipe-manifest.jsonl"
_LOOK_S = 0.2
DEFAULT_NAME = "{stem}{suffix}"
_IMAGE_SUFFIXES = {
    ".avif", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
}  # fmt: skip
# Other pictures: who has some among their images would want to know.
_OTHER_SUFFIXES = {
    ".arw", ".bmp", ".cr2", ".cr3", ".czi", ".dcm", ".dng", ".exr", ".fits", ".hdr", ".ico", ".j2k",
    ".jfif", ".jp2", ".jpe", ".jpf", ".jpx", ".jxl", ".mrxs", ".ndpi", ".nef", ".orf", ".pbm", ".pdf",
    ".pgm", ".pnm", ".ppm", ".psd", ".raf", ".rw2", ".svg", ".svs", ".tga", ".v", ".xcf",
}  # fmt: skip
_MOST_NAMED = 6
_WRITTEN = {suffix for fmt in FORMATS for suffix in fmt.suffixes}
# What decides no byte of an output.
_FREE = ("workers", "threads", "runners", "memory_bytes", "job_dir", "overwrite", "engine", "fresh",
         "checkpoint_every_s", "storage_options", "address", "slabs", "slab")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """An input and its output."""

    src: Path
    dst: Path


def find_pairs(
    src_dir: PathLike, dst_dir: PathLike, *, globs: Sequence[str] = (), name: str = DEFAULT_NAME
) -> list[Pair]:
    """The images of a folder and what they become, sorted.

    Args:
        src_dir: searched with all its folders, but for jobs' own and ``dst_dir``.
        dst_dir: where outputs go, in the same folders.
        globs: which files, as :meth:`pathlib.Path.glob` takes them; none: all with an image's ending.
        name: an output's name, of ``{stem}``, ``{suffix}`` and ``{name}`` (both) of the input.

    Raises:
        InputError: ``src_dir`` is no folder.
        SettingsError: two inputs would become the same output, or ``name`` makes no sense.
    """
    root, target = Path(src_dir), _folder(dst_dir)
    if not root.is_dir():
        raise InputError(f"{root} is no folder: name one that is there.")
    if root.resolve() == target.resolve():
        raise OutputError(f"{root} is the folder of inputs and of outputs: name another one.")
    try:
        found = {path for pattern in globs or ("**/*",) for path in root.glob(pattern)}
    except (ValueError, NotImplementedError) as error:
        raise SettingsError(f"the glob {' '.join(globs)!r} makes no sense ({error}).") from None
    if any(".." in path.relative_to(root).parts for path in found):
        raise SettingsError(f"the glob {' '.join(globs)!r} leads out of {root}.")
    # Outputs that lie among the inputs are none.
    outputs = target.resolve() if root.resolve() in target.resolve().parents else None
    files = [
        path
        for path in sorted(found)
        if path.is_file()
        and not any(part.endswith(".srpipe") for part in path.relative_to(root).parts)
        and path.name != MANIFEST_FILE
        and outputs not in path.resolve().parents
    ]
    if not any(part.startswith(".") for pattern in globs for part in Path(pattern).parts):
        files = _without_hidden(files, root)
    if not globs:
        files = _without_others(files, root)
    return _pairs(files, [target / path.relative_to(root).parent for path in files], name)


def _without_hidden(files: list[Path], root: Path) -> list[Path]:
    seen = []
    for file in files:
        if any(part.startswith(".") for part in file.relative_to(root).parts):
            logger.debug("%s is hidden, and left out.", file)
        else:
            seen.append(file)
    return seen


def _without_others(files: list[Path], root: Path) -> list[Path]:
    """Files with an ending that is read; how many others there are is said in one line."""
    others = Counter(
        file.suffix.lower() or "no ending"
        for file in files
        if file.suffix.lower() not in _IMAGE_SUFFIXES
    )
    if others:
        level = logging.WARNING if _OTHER_SUFFIXES & others.keys() else logging.INFO
        names = sorted(others, key=lambda suffix: (suffix not in _OTHER_SUFFIXES, -others[suffix]))
        counts = [f"{others[name]} {name}" for name in names[:_MOST_NAMED]]
        counts += ["…"] if len(names) > _MOST_NAMED else []
        logger.log(
            level,
            "%s: %d files are left out (%s), since images end in %s: convert them, or name them by "
            "--glob.",
            root, others.total(), ", ".join(counts), " ".join(sorted(_IMAGE_SUFFIXES)),
        )  # fmt: skip
    return [file for file in files if file.suffix.lower() in _IMAGE_SUFFIXES]


def list_pairs(
    files: Iterable[PathLike], dst_dir: PathLike, *, name: str = DEFAULT_NAME
) -> list[Pair]:
    """Named images and what they become, all in one folder.

    Raises:
        SettingsError: as :func:`find_pairs`.
    """
    names = [os.fspath(file) for file in files]
    for file in names:
        if is_url(file) or "\0" in file:
            raise InputError(
                f"{redact_url(file)!r} is no name of a file: lists hold paths, one on each line, or "
                "with --null each with a NUL behind it."
            )
    paths = [Path(file) for file in names]
    return _pairs(paths, [_folder(dst_dir)] * len(paths), name)


def _folder(path: PathLike) -> Path:
    name = os.fspath(path)
    if is_url(name):
        raise OutputError(f"{redact_url(name)} is a URL: many images are written to a folder here.")
    return Path(name)


def _pairs(files: list[Path], folders: list[Path], name: str) -> list[Pair]:
    by_output: dict[Path, Path] = {}
    inputs = {file.resolve() for file in files}
    for file, folder in zip(files, folders, strict=True):
        try:
            # What is read from a format that cannot be written becomes a TIFF.
            suffix = (
                file.suffix if file.suffix.lower() in _WRITTEN or name != DEFAULT_NAME else ".tif"
            )
            output = folder / name.format(stem=file.stem, suffix=suffix, name=file.name)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError):
            raise SettingsError(
                f"the name {name!r} makes no sense: use {{stem}}, {{suffix}} and {{name}}, as in "
                "'{stem}-x2.tif'."
            ) from None
        if output.resolve() in inputs:
            raise OutputError(
                f"{file} would become {output}, which is an input: choose another name."
            )
        if "[" in name:
            raise SettingsError(
                f"the name {name!r} has options in it, which many images cannot have."
            )
        if output in by_output:
            raise SettingsError(
                f"{by_output[output]} and {file} would both become {output}: keep their endings "
                "apart, as with the name '{name}.tif'."
            )
        by_output[output] = file
    return [Pair(src, dst) for dst, src in by_output.items()]


def enhance_folder(
    src_dir: PathLike,
    dst_dir: PathLike,
    *,
    globs: Sequence[str] = (),
    name: str = DEFAULT_NAME,
    at_once: int | None = None,
    manifest: PathLike | None = None,
    stop: StopRequest | None = None,
    model: PathLike = DEFAULT_MODEL,
    **settings: Any,
) -> Iterator[FileOutcome]:
    """Enhance the images of a folder, a few at once, with a model that stays loaded.

    Called again, it passes over what is done: an output that is still the file that was written, from
    an input of the same content, by the same settings, model and software. One that was made by another
    request is replaced; a file that is nobody's is not, unless ``overwrite`` says so. What
    was interrupted goes on from its last checkpoint.

    Args:
        src_dir: the inputs' folder.
        dst_dir: the outputs'; made where it is not there.
        globs, name: see :func:`find_pairs`.
        at_once: images under way; None: two, and one more for every eight cores; on a Ray cluster, as
            many as there is room for.
        manifest: where outcomes are written down; None: ``dst_dir/srpipe-manifest.jsonl``.
        stop: lets a signal handler or another thread ask it to stop.
        model: a bundled model's name, or the path of an .onnx file.
        settings: as :func:`srpipe.enhance` takes them.

    Yields:
        What became of each file, as it is known; an image that fails does not end the others.

    Raises:
        RequestError: nothing was begun: a folder, a name, the model or a setting is wrong.
    """
    pairs = find_pairs(src_dir, dst_dir, globs=globs, name=name)
    return enhance_pairs(
        pairs, dst_dir, at_once=at_once, manifest=manifest, stop=stop, model=model, **settings
    )


def enhance_pairs(
    pairs: Sequence[Pair],
    dst_dir: PathLike,
    *,
    at_once: int | None = None,
    manifest: PathLike | None = None,
    stop: StopRequest | None = None,
    model: PathLike = DEFAULT_MODEL,
    **settings: Any,
) -> Iterator[FileOutcome]:
    """Enhance images, as :func:`enhance_folder` does.

    Args:
        pairs: inputs and outputs.
        dst_dir: the manifest's folder, where it has no place of its own.
        at_once, manifest, stop, model, settings: see :func:`enhance_folder`.
    """
    note_work()
    for name in ("job_dir", "slab", "slabs"):
        if settings.get(name) is not None:
            raise SettingsError(f"{name} is for one image: leave it out for a folder.")
    on_ray = settings.get("engine") == "ray"
    at_once = at_once if on_ray and at_once is None else images_at_once(at_once)
    try:
        os.makedirs(dst_dir, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {dst_dir} cannot be made ({error.strerror}).") from None
    log = Manifest(Path(manifest) if manifest is not None else Path(dst_dir, MANIFEST_FILE))
    enhancer: AnyEnhancer
    if on_ray and pairs:
        asked = Settings(model=os.fspath(model), **settings)
        enhancer = RayEnhancer(asked, os.fspath(pairs[0].src.absolute()), os.path.abspath(dst_dir))
        at_once = at_once or enhancer.at_once
    else:
        enhancer = Enhancer(model, **settings)
    return _run(pairs, enhancer, log, images_at_once(at_once), stop or StopRequest())


def _run(
    pairs: Sequence[Pair],
    enhancer: AnyEnhancer,
    manifest: Manifest,
    at_once: int,
    stop: StopRequest,
) -> Iterator[FileOutcome]:
    busy: list[Pair] = []

    def run(pair: Pair, wait: bool) -> FileOutcome | None:
        outcome = _enhance(pair, enhancer, manifest, stop, wait=wait)
        if outcome is None:
            busy.append(pair)
        return outcome

    def run_all(pairs: Sequence[Pair], wait: bool) -> Iterator[FileOutcome]:
        tasks = (partial(run, pair, wait) for pair in pairs)
        yield from filter(None, run_at_once(tasks, at_once, stop))

    with enhancer:
        yield from run_all(pairs, wait=False)
        if busy and not stop.times:
            number = f"{len(busy)} images are" if len(busy) > 1 else f"{busy[0].dst} is"
            logger.warning("%s being made by another run: waiting for it.", number)
            yield from run_all(tuple(busy), wait=True)


def _enhance(
    pair: Pair, enhancer: AnyEnhancer, manifest: Manifest, stop: StopRequest, *, wait: bool
) -> FileOutcome | None:
    """Enhance an image, unless it has been done.

    Args:
        pair: input and output.
        enhancer: does it.
        manifest: says what has been done, and is told.
        stop: the run.
        wait: for another run that is at it.

    Returns:
        None: another run is at it.
    """
    outcome = FileOutcome(
        file=os.fspath(pair.src.absolute()), output=os.fspath(pair.dst.absolute()),
        status="interrupted", seconds=0.0, error="interrupted.",
    )  # fmt: skip
    try:
        request = _request(outcome.file, enhancer)
        outcome = replace(outcome, request=request)
        while True:
            with manifest.claim(outcome.output, stop if wait else None) as claimed:
                if claimed:
                    done = _enhance_claimed(pair, outcome, enhancer, manifest, stop)
                    if done is not None:
                        return done
            if not wait:
                return None
            if stop.times:
                return outcome
            time.sleep(_LOOK_S)  # for a run that has another manifest
    except (SrpipeError, OSError) as problem:  # an input, or the manifest
        return replace(outcome, status="failed", error=str(problem))


def _enhance_claimed(
    pair: Pair, outcome: FileOutcome, enhancer: AnyEnhancer, manifest: Manifest, stop: StopRequest
) -> FileOutcome | None:
    """Enhance an image that no run with the same manifest is at, unless it has been done.

    Returns:
        None: a run with another manifest is at it.

    Raises:
        OSError, OutputError: the manifest cannot be written.
    """
    begin_s = time.monotonic()
    file, output, request = outcome.file, outcome.output, outcome.request
    ours = manifest.request_of(output)
    if ours == request and not enhancer.settings.fresh:
        return replace(outcome, status="skipped", error=None)
    # What an interrupted job of another request has left is this folder's own.
    fresh = enhancer.settings.fresh or manifest.last_request.get(output, request) != request
    overwrite = enhancer.settings.overwrite or ours is not None
    status: Status = "done"
    error = None
    try:
        os.makedirs(pair.dst.parent, exist_ok=True)
        if ours is not None or written(output) is None:
            # Should nothing more be written down, the output is known for ours.
            manifest.add(replace(outcome, status="begun", error=None))
        enhancer.enhance(file, output, stop=stop, overwrite=overwrite, fresh=fresh)
    except Interrupted as problem:
        status, error = "interrupted", str(problem)
    except (SrpipeError, OSError) as problem:
        if isinstance(problem, JobError) and is_locked(Path(f"{output}.srpipe")):
            return None
        status, error = "failed", str(problem)
    except Exception as problem:  # the others go on, whatever this one has met
        logger.debug("", exc_info=True)
        status, error = "failed", f"{type(problem).__name__}: {problem}"
    outcome = replace(
        outcome,
        status=status,
        seconds=round(time.monotonic() - begin_s, 3),
        error=error,
        written=written(output) if status == "done" else None,
    )
    try:
        manifest.add(outcome)
    except OutputError as problem:
        return replace(outcome, status="failed", error=error or str(problem))
    return outcome


def _request(file: str, enhancer: AnyEnhancer) -> str:
    """Digest of all that decides an output's bytes, but for its place.

    Raises:
        OSError: the input cannot be read.
    """
    settings = {k: v for k, v in asdict(enhancer.settings).items() if k not in _FREE}
    if enhancer.settings.mask is not None:
        settings["mask"] = identify_file(enhancer.settings.mask).sha256
    facts = {
        "input": identify_file(file).content,
        "model": enhancer.model.sha256,
        "device": enhancer.device,
        "settings": settings,
        "software": software_versions(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
