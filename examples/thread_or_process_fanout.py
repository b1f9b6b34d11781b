"""Many images at once: in the threads of one process, or in several processes.

    python thread_or_process_fanout.py threads|processes OUT_DIR INPUT...

Threads share one loaded model, and while one image is read or encoded others are computed: the better
choice on one machine. Processes suit pools that are there already, Dask's among them:

    client = dask.distributed.Client(n_workers=4, threads_per_worker=1)
    results = client.gather(client.map(enhance_one, sources, targets))

Each worker then should take its share of the cores only (``threads``).
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import srpipe

MODEL = "lite-x2"
PROCESSES = 2


def in_threads(pairs: list[tuple[Path, Path]]) -> Iterator[tuple[Path, str]]:
    """Outputs and what became of them, as they are done."""
    with srpipe.Enhancer(MODEL) as enhancer:
        for _, dst, outcome in enhancer.map(pairs):
            yield Path(dst), _describe(outcome)


def in_processes(pairs: list[tuple[Path, Path]]) -> Iterator[tuple[Path, str]]:
    """The same, with a model in every process."""
    # srpipe's libraries must not be forked.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        sources, targets = zip(*pairs, strict=True)
        yield from zip(targets, pool.map(enhance_one, sources, targets), strict=True)


@functools.cache
def _enhancer() -> srpipe.Enhancer:
    """This process's own, loaded for its first image."""
    return srpipe.Enhancer(MODEL, threads=max(1, (os.cpu_count() or 1) // PROCESSES))


def enhance_one(src: Path, dst: Path) -> str:
    """Enhance an image in a worker; an image that fails does not end the pool."""
    try:
        return _describe(_enhancer().enhance(src, dst))
    except srpipe.SrpipeError as error:
        return _describe(error)


def _describe(outcome: srpipe.Report | srpipe.SrpipeError) -> str:
    if isinstance(outcome, srpipe.SrpipeError):
        return f"failed: {outcome}"
    return f"{outcome.output_size} in {outcome.seconds:.1f} s"


if __name__ == "__main__":
    how, out_dir, *inputs = sys.argv[1:]
    Path(out_dir).mkdir(exist_ok=True)
    jobs = [(Path(name), Path(out_dir) / f"{Path(name).stem}.tif") for name in inputs]
    results = dict((in_threads if how == "threads" else in_processes)(jobs))
    for output, result in sorted(results.items()):
        print(f"{output}: {result}")
    sys.exit(any(result.startswith("failed") for result in results.values()))
