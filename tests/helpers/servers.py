"""An HTTP server on loopback that serves byte ranges, misbehaves on demand, and notes what it is asked for."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray


@dataclass
class Request:
    """One request: the path with its query, the Range header, the bytes of the answer's body."""

    path: str
    range: str | None
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    """Leaves every GET and HEAD to the server."""

    protocol_version = "HTTP/1.1"
    server: RangeServer
    request_noted: Request

    def do_GET(self) -> None:
        self.server.answer(self)

    def do_HEAD(self) -> None:
        self.server.answer(self)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send an answer; `headers` may lie about its length."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.request_noted.sent = len(body)
            self.wfile.write(body)


MOST = 1 << 26
"""Bytes of a file that are sent whole: of a larger one an answer without ranges is announced, and breaks off."""

Fault = Callable[[Handler, int], bool]
"""Called before an answer with the handler and the number of the request, from 1; True if it has answered itself."""


class RangeServer(ThreadingHTTPServer):
    """Serves the files below `root`.

    Attributes:
        requests: what was asked for since `reset`.
        latency: seconds before every answer.
        fault: what goes wrong.
        ranges: whether ranges are served; if not, every answer is a whole file.
        several: whether several ranges are served at once; if not, what is asked for so is answered with the whole file
            or, where that is "first", with the first range.
        tag: what every ETag begins with; None sends none.
        noise: weights that stand in for the holes in safetensors files, again and again; None leaves zeros.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.reset()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def reset(self) -> None:
        """Behave, and forget what was asked for."""
        self.requests: list[Request] = []
        self.latency = 0.0
        self.fault: Fault | None = None
        self.ranges = True
        self.several: bool | str = True
        self.tag: str | None = "v1"
        self.noise: NDArray[np.uint8] | None = None

    @property
    def sent(self) -> int:
        """Bytes of all bodies since `reset`."""
        return sum(one.sent for one in self.requests)

    @property
    def paths(self) -> list[str]:
        """Paths that were asked for since `reset`, in order."""
        return [one.path for one in self.requests]

    def url(self, path: str) -> str:
        """Return the URL of a path below the root."""
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""

    def answer(self, handler: Handler) -> None:
        """Answer one request."""
        handler.request_noted = Request(handler.path, handler.headers.get("Range"))
        self.requests.append(handler.request_noted)
        number = len(self.requests)
        time.sleep(self.latency)
        if self.fault is not None and self.fault(handler, number):
            return
        place = self.root / unquote(handler.path.partition("?")[0]).lstrip("/")
        if place.is_dir():
            names = (f"{entry.name}/" if entry.is_dir() else entry.name for entry in sorted(place.iterdir()))
            handler.reply(200, "".join(f'<a href="{name}">{name}</a>\n' for name in ("../", *names)).encode())
        elif not place.is_file():
            handler.reply(404, b"no such file")
        else:
            self.answer_with(handler, place)

    def read(self, file: Path, first: int, stop: int) -> bytes:
        """Return bytes of a file, holes filled with noise."""
        with file.open("rb") as opened:
            header = 8 + int.from_bytes(opened.read(8), "little")
            opened.seek(first)
            data = opened.read(stop - first)
        if self.noise is None or first < header:
            return data
        stored = np.frombuffer(data, np.uint8)
        at = (np.arange(len(stored)) + (first - header)) % len(self.noise)
        return np.where(stored, stored, self.noise[at]).tobytes()

    def answer_with(self, handler: Handler, file: Path) -> None:
        """Send a file, or the range of it that is asked for."""
        size = file.stat().st_size
        tag = {} if self.tag is None else {"ETag": f'"{self.tag}-{size}"'}
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        if handler.command == "HEAD":
            handler.reply(200, headers={"Content-Length": str(size), "Accept-Ranges": "bytes"} | tag)
            return
        asked = re.findall(r"(\d+)-(\d+)", handler.headers.get("Range", ""))
        if len(asked) > 1 and self.ranges and self.several is True:
            self.answer_several(handler, file, [(int(first), int(last) + 1) for first, last in asked], tag)
            return
        if len(asked) > 1 and self.several == "first":
            match = re.match(r"bytes=(\d+)-(\d+)", handler.headers["Range"])
        if match is None or not self.ranges:
            if size > MOST:
                handler.reply(200, headers={"Content-Length": str(size)} | tag)
                return
            handler.reply(200, file.read_bytes(), tag)
            return
        first, stop = int(match[1]), min(int(match[2]) + 1, size)
        if first >= size:
            handler.reply(416, b"", {"Content-Range": f"bytes */{size}"})
            return
        data = self.read(file, first, stop)
        handler.reply(206, data, {"Content-Range": f"bytes {first}-{stop - 1}/{size}", "Accept-Ranges": "bytes"} | tag)

    def answer_several(
        self, handler: Handler, file: Path, ranges: list[tuple[int, int]], headers: dict[str, str]
    ) -> None:
        """Send several ranges of a file, as RFC 9110 describes."""
        size = file.stat().st_size
        body = b""
        for first, stop in ranges:
            span = f"bytes {first}-{min(stop, size) - 1}/{size}".encode()
            body += b"\r\n--PART\r\nContent-Type: application/octet-stream\r\nContent-Range: " + span + b"\r\n\r\n"
            body += self.read(file, first, stop)
        kind = {"Content-Type": "multipart/byteranges; boundary=PART"}
        handler.reply(206, body + b"\r\n--PART--\r\n", kind | headers)
