"""OpenSeadragon, which shows deep-zoom pictures in a browser: fetched once, kept in the cache.

It is the npm package of one version, known by its hash, whoever hands it out.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from srpipe.errors import InputError, RequestError
from srpipe.io.cache import cache_folder, write_cached
from srpipe.io.small_files import read_small

VERSION = "6.1.1"
INTEGRITY = (
    "sha512-g4iKe2q8B642SaBT3+x4ZF3/8b1TxPPydyjmtrOLgDrl"
    "YWMKd9ZXM+1Cb/xa9DVySkvs/7l6HR1nHKfD5F3Tsw=="
)
_FILE = f"openseadragon-{VERSION}.tgz"
_KIND = "viewer"
_DEFAULT_REGISTRY = "https://registry.npmjs.org"
_TIMEOUT_S = 30.0
_MAX_BYTES = 20_000_000
_SCRIPT = "package/build/openseadragon/openseadragon.min.js"
_LICENSE = "package/LICENSE.txt"


@dataclass(frozen=True, slots=True)
class ViewerScript:
    """What a page needs to show the pictures."""

    script: bytes
    license: bytes


def load_viewer(package: str | None = None) -> ViewerScript:
    """The viewer: from a package that is there, the cache, or the npm registry, which is asked once.

    Args:
        package: an ``openseadragon-VERSION.tgz``, as ``npm pack`` fetches it; None: cache or registry.

    Raises:
        InputError: ``package`` is missing, or not the one that belongs here.
        RequestError: it is not in the cache, and cannot be fetched.
    """
    if package is not None:
        try:
            content = read_small(package, _MAX_BYTES)
        except OSError as error:
            raise InputError(
                f"{package} cannot be read ({error.strerror}): check the path."
            ) from None
        if not _is_genuine(content):
            raise InputError(
                f"{package} is not {_FILE} as it was published (its hash differs): fetch it with "
                f"'npm pack openseadragon@{VERSION}'."
            )
        return _unpack(content)
    folder = cache_folder(_KIND)
    if folder is not None:
        with contextlib.suppress(OSError):
            content = read_small(folder / _FILE, _MAX_BYTES)
            if _is_genuine(content):
                return _unpack(content)
    content = _fetch()
    write_cached(_KIND, _FILE, content)
    return _unpack(content)


def registry() -> str:
    """Address of the npm registry that npm asks here, by environment or ``.npmrc``, or npm's own."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if os.environ.get(name):
            return os.environ[name].rstrip("/")
    try:
        settings = os.environ.get("NPM_CONFIG_USERCONFIG") or Path.home() / ".npmrc"
        lines = read_small(settings, _MAX_BYTES).decode()
    except (OSError, RuntimeError, ValueError):  # RuntimeError: there is no home
        return _DEFAULT_REGISTRY
    for line in lines.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "registry" and value.strip():
            return value.strip().strip("\"'").rstrip("/")
    return _DEFAULT_REGISTRY


def _fetch() -> bytes:
    url = f"{registry()}/openseadragon/-/{_FILE}"
    advice = (
        f"fetch it elsewhere with 'npm pack openseadragon@{VERSION}' and name it with "
        "--openseadragon, or set npm_config_registry."
    )
    if not url.startswith(("https://", "http://")):
        raise RequestError(f"the npm registry {registry()!r} is no web address: {advice}")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read(_MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RequestError(
            f"the viewer cannot be fetched from {url} ({reason}): {advice}"
        ) from None
    if not _is_genuine(content):
        raise RequestError(f"{url} gave something else than was published: {advice}")
    return content


def _is_genuine(content: bytes) -> bool:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return f"sha512-{digest}" == INTEGRITY


def _unpack(content: bytes) -> ViewerScript:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = [archive.extractfile(name) for name in (_SCRIPT, _LICENSE)]
        script, text = (file.read() for file in files if file is not None)
    return ViewerScript(script, text)
