"""URLs of images: telling them from paths, and showing them without the credentials in them.

All that srpipe logs, raises, reports or keeps of a URL goes through :func:`redact_url`. A URL says
which of its parts are secret only by convention, so whatever may be is hidden: user and password, and
the values of the query, which is where signed URLs have their signature.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "***"
_LEAST_SECRET = 4
"""Characters below which a value is not looked for in texts: it would be found everywhere."""
_MAX_NAME = 100

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]+"
_START = re.compile(rf"(?:{_SCHEME}::)*{_SCHEME}://")
# fsspec's chains: zip://scan.tif::s3://bucket/scans.zip.
_NEXT_LINK = re.compile(rf"::(?={_SCHEME}://)")
_IN_TEXT = re.compile(rf"(?:{_SCHEME}::)*{_SCHEME}://[^\s'\"<>]+")
_PORT = re.compile(r"(?:[^:]*|\[[0-9A-Fa-f:.%]*\])(?::\d*)?")
# What changes each time a URL is signed, though it is of the same object: AWS, Google, Azure, CDNs.
_PASSING = re.compile(
    r"x-(amz|goog|oss|cos|obs|ms)-.*|signature|sig|s[etpvrk]|spr|sk(oid|tid|t|e|s|v)|awsaccesskeyid|"
    r"googleaccessid|expires|key-pair-id|policy|.*token|auth.*|.*key|password|.*secret.*",
    re.IGNORECASE,
)
_SECRET_OPTION = re.compile(r"key|secret|token|pass|cred|auth|sas|sig|conn|user|header", re.I)


def is_url(text: str) -> bool:
    """Whether it is a URL, also one of fsspec's chains (``simplecache::s3://…``), and no path."""
    return _START.match(text) is not None


def protocols_of(url: str) -> tuple[str, ...]:
    """The protocols of a URL, or of all links of a chain, the first first."""
    starts = [_START.match(link) for link in _links(url)]
    return tuple(
        name
        for start in starts
        if start
        for name in start[0].removesuffix("://").lower().split("::")
    )


def redact_url(text: str) -> str:
    """A URL without user, password and query values; anything else as it is."""
    if not is_url(text):
        return text
    return "::".join(_redact_link(link) for link in _links(text))


def redact_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """A text in which every URL is redacted, and none of ``secrets`` is left."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _IN_TEXT.sub(lambda found: redact_url(found[0]), text)


def secrets_in(url: str, options: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """What is secret in a URL and in options of its file system, for :func:`redact_text`."""
    found = [*_option_secrets(options or {}, secret=False)]
    for link in _links(url) if is_url(url) else ():
        _, user, _, query = _parts(link)
        found += [user, *user.split(":", 1)]
        found += [value for _, _, value in _pairs(query)]
    return tuple(dict.fromkeys(text for text in found if len(text) >= _LEAST_SECRET))


def url_key(url: str) -> str:
    """A hash that tells objects apart, and is the same for one however its URL is signed."""
    links = []
    for link in _links(url):
        start, _, rest, query = _parts(link)
        lasting = [pair for pair in _pairs(query) if not _PASSING.fullmatch(pair[0])]
        links.append([start.lower(), rest, lasting])
    return hashlib.sha256(repr(links).encode("utf-8", "surrogateescape")).hexdigest()


def url_name(url: str) -> str:
    """The object's name, as a file's name on any disk."""
    _, _, rest, _ = _parts(_links(url)[0])
    name = re.sub(r"[^\w.+-]", "_", rest.rstrip("/").rpartition("/")[2], flags=re.ASCII)
    return name[-_MAX_NAME:] or "image"


def _redact_link(link: str) -> str:
    start, user, rest, query = _parts(link)
    pairs = (f"{name}{equals}{HIDDEN}" if equals else HIDDEN for name, equals, _ in _pairs(query))
    shown = f"{query[0]}{'&'.join(pairs)}" if query else ""
    return f"{start}{HIDDEN}@{rest}{shown}" if user else f"{start}{rest}{shown}"


def _parts(link: str) -> tuple[str, str, str, str]:
    """Scheme, user and password, host and path, and query or fragment with its mark."""
    start = _START.match(link)
    assert start is not None
    rest, user = link[start.end() :], ""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if ":" in host and ("@" in host or not _PORT.fullmatch(host)):
        # As far as it may go: a password may hold what should have been encoded.
        user = rest.rpartition("@")[0] or host
    elif "@" in host:
        user = host.rpartition("@")[0]
    if user:
        rest = rest[len(user) :].removeprefix("@")
    cut = re.search(r"[?#]", rest)
    base, query = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
    return start[0], user, base, query


def _links(url: str) -> list[str]:
    """The links of a chain; a protocol without a path of its own belongs to the next."""
    first, *rest = _NEXT_LINK.split(url)
    return [first, *rest] if "://" in first else [f"{first}::{rest[0]}", *rest[1:]]


def _pairs(query: str) -> list[tuple[str, str, str]]:
    """Name, ``=`` and value of each part; a part that is only a name may be a secret itself."""
    if not query:
        return []
    pairs = [part.partition("=") for part in re.split(r"[&;?#]", query[1:])]
    return [(name, equals, value) if equals else ("", "", name) for name, equals, value in pairs]


def _option_secrets(options: Mapping[str, Any], *, secret: bool) -> Iterator[str]:
    for name, value in options.items():
        hidden = secret or bool(_SECRET_OPTION.search(str(name)))
        if isinstance(value, Mapping):
            yield from _option_secrets(value, secret=hidden)
        elif isinstance(value, str) and hidden:
            yield value
