"""One object behind a URL, through fsspec: what is known of it, and its way here and there.

Errors of fsspec, its file systems and their clients become srpipe's, which never hold credentials.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from srpipe.errors import (
    InputError,
    OutputError,
    ReadError,
    RunError,
    SettingsError,
    SrpipeError,
    WriteError,
)
from srpipe.io import disk
from srpipe.plan.url import protocols_of, redact_text, redact_url, secrets_in

BLOCK_BYTES = 16 * 2**20

# A put to these appears whole, or not at all; elsewhere an object is renamed when it is whole.
_ATOMIC = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "http", "https", "memory"}
_HTTP = {"http", "https"}
_BUCKETS = {"s3", "s3a", "gs", "gcs"}
_CHECKSUMS = ("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "crc32c", "content_md5", "CRC",
              "generation", "VersionId")  # fmt: skip
_TIMES = (
    "LastModified",
    "Last-Modified",
    "last_modified",
    "mtime",
    "updated",
    "modified",
    "created",
)

OnBytes = Callable[[int], None]
"""Called with bytes that have gone over; what it raises ends the transfer."""


@dataclass(frozen=True, slots=True)
class RemoteInfo:
    """An object as it is now."""

    size_bytes: int | None
    """None where the server does not tell."""
    modified_ns: int
    """Time of the last change, 0 where the server does not tell."""
    version: str | None
    """Changes with the content; None where the server tells nothing that does."""


class RemoteObject:
    """An object behind a URL, there or not."""

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        """Find the file system; nothing is asked of it yet.

        Args:
            url: any that fsspec takes.
            storage_options: options of file systems by protocol: ``{"s3": {"anon": True}}``.

        Raises:
            SettingsError: fsspec, or what it needs for the protocol, is not installed, or does not
                take the options.
        """
        self.shown = redact_url(url)
        """The URL, without credentials."""
        self.protocol = protocols_of(url)[0]
        options = {
            protocol: dict((storage_options or {})[protocol])
            for protocol in dict.fromkeys(protocols_of(url))
            if protocol in (storage_options or {})
        }
        self._secrets = secrets_in(url, options)
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise SettingsError(
                f"{self.shown} is a URL, and fsspec, which opens those, is not installed: "
                "pip install 'srpipe[remote]'."
            ) from None
        try:
            # An instance that is shared would keep credentials, and what it once saw in a folder.
            options.setdefault(self.protocol, {})["skip_instance_cache"] = True
            self._fs, self._path = url_to_fs(url, **options)
        except ImportError as error:
            raise SettingsError(
                f"{self.shown} needs a package that is not installed ({self._say(error)}): "
                "pip install 'srpipe[remote]', or the one it names."
            ) from None
        except Exception as error:
            raise SettingsError(f"{self.shown} cannot be opened: {self._say(error)}.") from None

    def read_info(self) -> RemoteInfo:
        """What the server says of the object.

        Raises:
            InputError: it is not there, is a folder, or may not be read.
            ReadError: the server cannot be reached.
        """
        with self._clear_errors("read", InputError, ReadError):
            info = self._fs.info(self._path)
        if info.get("type") == "directory":
            raise InputError(f"{self.shown} is a folder: name one image file.")
        return _as_info(info)

    def find(self) -> RemoteInfo | None:
        """What the server says of the object as an output; None where none can be seen.

        Over HTTP there are URLs that can only be written to; nothing can be seen through those.

        Raises:
            OutputError: it is a folder, or may not be looked at.
            WriteError: the server cannot be reached.
        """
        try:
            with self._clear_errors("written", OutputError, WriteError):
                info = self._find_info()
        except OutputError:
            if self.protocol in _HTTP:
                return None
            raise
        if info is None:
            return None
        if info.get("type") == "directory":
            raise OutputError(f"{self.shown} is a folder: name the output file.")
        return _as_info(info)

    def _find_info(self) -> Mapping[str, Any] | None:
        try:
            info: Mapping[str, Any] = self._fs.info(self._path)
            return info
        except FileNotFoundError as error:
            if _is_denied(error) or _network_error(error):
                raise
        if self.protocol in _BUCKETS:
            # What is not there must have a place to go to.
            try:
                self._fs.info(self._path.partition("/")[0])
            except FileNotFoundError:
                raise
            except Exception:
                pass  # who may write objects need not be allowed to look at the bucket
        return None

    def download(self, path: Path, info: RemoteInfo, on_bytes: OnBytes) -> None:
        """Copy the object to ``path``, from the end of what is there on.

        Raises:
            InputError, ReadError: it cannot be read; what came is kept in ``path``.
        """
        with self._clear_errors("read", InputError, ReadError), path.open("ab") as file:
            if info.size_bytes is not None and self._copy_blocks(file, info.size_bytes, on_bytes):
                return
            # A server without lengths or ranges: nothing can go on in the middle.
            file.truncate(0)
            try:
                self._fs.get_file(self._path, file, callback=_callback(on_bytes))
            except BaseException:
                file.close()
                disk.remove(path)
                raise
        if info.size_bytes not in (None, path.stat().st_size):
            disk.remove(path)
            raise ReadError(f"{self.shown} came in another length than was announced: try again.")

    def _copy_blocks(self, file: Any, size_bytes: int, on_bytes: OnBytes) -> bool:
        """Whether the server gives parts; each reaches the disk before the next is asked for."""
        options = {"size": size_bytes} if self.protocol in _HTTP else {}
        with self._fs.open(self._path, "rb", cache_type="none", **options) as source:
            at = file.tell()
            on_bytes(at)
            while at < size_bytes:
                source.seek(at)
                wanted = min(BLOCK_BYTES, size_bytes - at)
                try:
                    block = source.read(wanted)
                except ValueError:
                    if self.protocol not in _HTTP:
                        raise
                    on_bytes(-at)
                    return False
                if len(block) != wanted:
                    raise ReadError(
                        f"{self.shown} ended at {at + len(block)} of {size_bytes} bytes: try again."
                    )
                file.write(block)
                file.flush()
                os.fdatasync(file.fileno())
                at += wanted
                on_bytes(wanted)
        return True

    def upload(self, path: Path, on_bytes: OnBytes) -> None:
        """Copy a file to the URL, where it appears whole or not at all.

        Raises:
            WriteError: it cannot be put there.
        """
        callback = _callback(on_bytes)
        with self._clear_errors("written", WriteError, WriteError):
            if self.protocol in _HTTP:
                # Object stores take no chunked bodies, which is what a body of unknown length is.
                headers = {**self._fs.kwargs.get("headers", {})}
                headers["Content-Length"] = str(path.stat().st_size)
                self._fs.put_file(
                    os.fspath(path), self._path, callback=callback, method="put", headers=headers
                )
            elif self.protocol in _ATOMIC:
                self._fs.put_file(os.fspath(path), self._path, callback=callback)
            else:
                partial = f"{self._path}.part"
                self._fs.put_file(os.fspath(path), partial, callback=callback)
                self._fs.mv(partial, self._path)

    @contextlib.contextmanager
    def _clear_errors(
        self, done: str, refused: type[SrpipeError], failed: type[RunError]
    ) -> Iterator[None]:
        try:
            yield
        except SrpipeError:
            raise
        except Exception as error:
            raise self._as_error(error, done, refused, failed) from None

    def _as_error(
        self, error: Exception, done: str, refused: type[SrpipeError], failed: type[RunError]
    ) -> SrpipeError:
        names = {type(e).__name__ for e in _chain(error)}
        if names & {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}:
            return refused(
                f"{self.shown} cannot be {done}: no credentials were found; set them in the "
                "environment, as the tools of its provider take them."
            )
        if _is_denied(error):
            return refused(
                f"{self.shown} may not be {done}: check the credentials and what they allow."
            )
        if network := _network_error(error):
            return failed(
                f"{self.shown} cannot be {done}: its server cannot be reached "
                f"({self._say(network)}); check the network and the address, and try again."
            )
        if isinstance(error, FileNotFoundError):
            what = "does not exist"
            if done == "written":
                what = "cannot be written: its bucket or folder does not exist"
            return refused(f"{self.shown} {what}: check the URL.")
        return failed(f"{self.shown} cannot be {done} ({self._say(error)}).")

    def _say(self, error: BaseException) -> str:
        text = redact_text(" ".join(str(error).split()), self._secrets).rstrip(".")
        return text[:300] or type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = error
    for _ in range(10):
        if at is None:
            return
        yield at
        at = at.__cause__ or at.__context__


def _is_denied(error: BaseException) -> bool:
    return any(
        isinstance(e, PermissionError) or getattr(e, "status", None) in (401, 403)
        for e in _chain(error)
    )


def _network_error(error: BaseException) -> BaseException | None:
    # By name, because the clients are there or not: aiohttp's, botocore's.
    names = (
        "Connect",
        "Timeout",
        "Disconnected",
        "ClientPayload",
        "ClientOSError",
        "IncompleteRead",
    )
    for e in _chain(error):
        known = isinstance(e, ConnectionError | TimeoutError)
        if known or any(name in type(e).__name__ for name in names):
            return e
    return None


def _callback(on_bytes: OnBytes) -> Any:
    from fsspec.callbacks import Callback

    class Told(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            on_bytes(inc)

    return Told()


def _as_info(info: Mapping[str, Any]) -> RemoteInfo:
    size = info.get("size")
    modified_ns = next((_as_ns(info[name]) for name in _TIMES if info.get(name)), 0)
    facts = {name: str(info[name]) for name in _CHECKSUMS if info.get(name)}
    if modified_ns:
        facts["modified"] = str(modified_ns)
    version = json.dumps(facts | {"size": str(size)}, sort_keys=True) if facts else None
    return RemoteInfo(None if size is None else int(size), modified_ns, version)


def _as_ns(moment: object) -> int:
    """A time as file systems tell it: a datetime, seconds, or a text; 0 if it is none of these."""
    try:
        if isinstance(moment, str):
            moment = _parse_time(moment)
        if isinstance(moment, datetime):
            aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
            return round(aware.timestamp() * 1e6) * 1000
        return round(float(moment) * 1e6) * 1000  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return 0


def _parse_time(text: str) -> datetime:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
