"""Servers on loopback that keep objects as those on the internet do: S3 (moto's), and plain HTTP."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USER, PASSWORD = "annabel", "hunter22"
LAST_MODIFIED = "Sat, 07 Feb 2026 10:00:00 GMT"


class WebServer(ThreadingHTTPServer):
    """Objects by path; keeps what was asked of it, and fails as it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []
        """Method, path with query, and range."""
        self.ranges = True
        self.password = ""
        self.signature = ""
        """What the query must hold."""
        self.breaks_after: int | None = None
        """Bytes of bodies until the connection is cut; None: it is not."""
        self.refuses_puts = 0
        """HTTP status of every PUT."""
        self.on_put: Any = None

    def url(self, path: str, user: str = "", query: str = "") -> str:
        at = f"{user}@" if user else ""
        return f"http://{at}127.0.0.1:{self.server_port}{path}{query}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_PUT(self) -> None:
        self._note()
        length = self.headers.get("Content-Length")
        if length is None:
            return self._fail(411)
        body = self.rfile.read(int(length))
        if self.server.on_put is not None:
            self.server.on_put(body)
        if self.server.refuses_puts:
            return self._fail(self.server.refuses_puts)
        if not self._allowed():
            return self._fail(403)
        self.server.objects[self.path.partition("?")[0]] = body
        return self._fail(200)

    def _answer(self, *, body: bool) -> None:
        server = self.server
        self._note()
        if not self._allowed():
            return self._fail(403)
        data = server.objects.get(self.path.partition("?")[0])
        if data is None:
            return self._fail(404)
        tag = hashlib.md5(data).hexdigest()
        wanted, status = data, 200
        asked = self.headers.get("Range", "")
        if server.ranges and asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            wanted, status = data[int(first) : int(last) + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(wanted)))
        self.send_header("ETag", f'"{tag}"')
        self.send_header("Last-Modified", LAST_MODIFIED)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if body:
            if server.breaks_after is not None:
                if len(wanted) > server.breaks_after:
                    self.wfile.write(wanted[: server.breaks_after])
                    self.wfile.flush()
                    self.close_connection = True
                    return None
                server.breaks_after -= len(wanted)
            self.wfile.write(wanted)
        return None

    def _allowed(self) -> bool:
        expected = base64.b64encode(f"{USER}:{self.server.password}".encode()).decode()
        given = self.headers.get("Authorization", "")
        return (not self.server.password or given == f"Basic {expected}") and (
            self.server.signature in self.path
        )

    def _note(self) -> None:
        request = (self.command, self.path, self.headers.get("Range", ""))
        self.server.requests.append(request)

    def _fail(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def web_server() -> Iterator[WebServer]:
    server = WebServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
