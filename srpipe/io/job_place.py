"""Where the job for an output has its files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from srpipe.errors import OutputError
from srpipe.io.cache import cache_folder
from srpipe.io.job_folder import REMOTE_FOLDER
from srpipe.plan.output import parse_output
from srpipe.plan.url import is_url, redact_url, url_key, url_name


def strip_file_scheme(text: str) -> str:
    """The path of a ``file://`` URL; anything else as it is."""
    return text.removeprefix("file://") if text.startswith("file:///") else text


def split_options(dst: str) -> tuple[str, str]:
    """An output and its options, brackets included, empty without any."""
    match = re.fullmatch(r"(.*?)(\[[^\[\]]*\])?", dst, re.DOTALL)
    assert match is not None
    return match[1], match[2] or ""


@dataclass(frozen=True, slots=True)
class JobPlace:
    """Where the job for an output has its files."""

    shown: str
    """The output: an absolute path, or a URL without credentials."""
    folder: Path
    output: Path
    """Where the job puts the finished file."""


def job_place(output: str, job_dir: str | None = None) -> JobPlace:
    """Find out where a job has its files, and where its folder is unless another is named: beside the
    output, or, if that is a URL, in the user's cache.

    Args:
        output: a path or a URL, options in brackets behind it.
        job_dir: the job's folder, if it was named.

    Raises:
        OutputError: ``output`` has no ending that srpipe writes, or there is no cache.
    """
    url, options = split_options(strip_file_scheme(output))
    if not is_url(url):
        path = os.path.realpath(parse_output(url + options).path)
        named = os.path.realpath(job_dir) if job_dir else f"{path}.srpipe"
        return JobPlace(path, Path(named), Path(path))
    name = parse_output(url_name(url) + options).path
    folder = Path(os.path.realpath(job_dir)) if job_dir else _folder_in_cache(url)
    return JobPlace(redact_url(url), folder, folder / REMOTE_FOLDER / f"output-{name}")


def _folder_in_cache(url: str) -> Path:
    jobs = cache_folder("jobs")
    if jobs is None:
        raise OutputError(
            f"{redact_url(url)}: there is no folder for the job's files; name one with --job-dir."
        )
    return jobs / url_key(url)[:16]
