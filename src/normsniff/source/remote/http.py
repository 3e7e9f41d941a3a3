"""fsspec's HTTP file system with answers that are checked: its own takes whatever comes, also all of a large file."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp
from fsspec.asyn import sync, sync_wrapper
from fsspec.implementations.http import HTTPFileSystem

from .answers import (
    PASSING,
    TOGETHER,
    AloneError,
    ChangedError,
    Entry,
    Head,
    RefusedError,
    TransientError,
    content_range,
    retry_after,
)
from .fetched import Extents
from .files import Count
from .multipart import PART, boundary_of, bundles, together

_TAG = re.compile(rb"<a\s([^<>]*)", re.IGNORECASE)  # each byte is in one tag at most, and looked at once for it
_LINK = re.compile(rb"""(?:^|\s)href\s*+=\s*+["']([^"'#?]++)""", re.IGNORECASE)
_ALONE = "the server serves one range at a time"
_LONGEST_LINK = 4_096  # bytes, as of a path
_CONNECT_SECONDS = 15.0


class RangedHTTP(HTTPFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """Reads byte ranges; a server that sends whole files instead is refused unless they are small."""

    def __init__(self, whole: int, seconds: float, **options: Any) -> None:
        """Set up; nothing is connected yet.

        Args:
            whole: bytes of a file that may be taken whole.
            seconds: for one request.
            options: of fsspec's file system, `get_client` say, which makes the sessions.
        """
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(_CONNECT_SECONDS, seconds))
        super().__init__(encoded=True, client_kwargs={"timeout": timeout, "trust_env": True}, **options)  # proxies
        self._whole = whole
        self._alone: set[str] = set()  # hosts that serve one range at a time

    async def _head_file(self, url: str, n: int, count: Count) -> Head:
        return await self._get(url, 0, n, count)

    head_file = sync_wrapper(_head_file)

    def requests_for(self, head: Head, ranges: Sequence[tuple[int, int]]) -> int:
        """Return how many requests `read_ranges` will send."""
        return len(self._bundles(head, ranges))

    def read_ranges(
        self, head: Head, ranges: Sequence[tuple[int, int]], count: Count
    ) -> Sequence[bytes | BaseException]:
        """Return the bytes of (start, stop) ranges, an exception for each that failed."""
        found: dict[tuple[int, int], bytes | BaseException] = sync(
            self.loop, self._read_bundles, head, self._bundles(head, ranges), count
        )
        return [found[one] for one in ranges]

    def _bundles(self, head: Head, ranges: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        return [[one] for one in ranges] if _host(head) in self._alone else bundles(ranges)

    async def _read_bundles(
        self, head: Head, bundled: Sequence[Sequence[tuple[int, int]]], count: Count
    ) -> dict[tuple[int, int], bytes | BaseException]:
        free = asyncio.Semaphore(TOGETHER)

        async def read(bundle: Sequence[tuple[int, int]]) -> Sequence[bytes | BaseException]:
            async with free:
                try:
                    if len(bundle) > 1:
                        return await self._several(head, bundle, count)
                    return [(await self._at(head, lambda url: self._get(url, *bundle[0], count))).data]
                except Exception as error:  # noqa: BLE001 - told of each range; a library may have errors of its own
                    return [error] * len(bundle)

        answers = await asyncio.gather(*map(read, bundled))
        return {
            one: got
            for bundle, some in zip(bundled, answers, strict=True)
            for one, got in zip(bundle, some, strict=True)
        }

    def entries(self, url: str, count: Count) -> list[Entry]:
        """Return what the links of a page name that lies directly below it: servers show directories as such pages."""
        page: Head = self.head_file(url, self._whole, count)
        base = page.address.partition("?")[0]
        found: dict[str, bool] = {}
        for tag in _TAG.finditer(page.data):
            link = _LINK.search(tag[1])
            if link is None or len(link[1]) > _LONGEST_LINK:
                continue
            below = urljoin(base, link[1].decode("utf-8", "replace")).removeprefix(
                base if base.endswith("/") else base + "/"
            )
            name = unquote(below.rstrip("/"))
            if name and "/" not in name and name not in (".", ".."):
                found[name] = below.endswith("/")
        return [Entry(name, is_directory) for name, is_directory in found.items()]

    async def _at(self, expect: Head, get: Callable[[str], Awaitable[Head]]) -> Head:
        """Return what `get` gives of the file that `expect` is the head of: from where it was found, if that lasts."""
        url, own = expect.url, urlsplit(expect.url)
        address = url if own.username or own.netloc == urlsplit(expect.address).netloc else expect.address
        try:
            part = await get(address)
        except (FileNotFoundError, PermissionError):
            if address == url:
                raise
            part = await get(url)
        if part.size != expect.size or (part.version and expect.version and part.version != expect.version):
            raise ChangedError
        return part

    async def _several(
        self, expect: Head, ranges: Sequence[tuple[int, int]], count: Count
    ) -> Sequence[bytes | BaseException]:
        """Return the bytes of ranges that one request asks for; where the server serves one at a time, it is noted."""
        found = Extents()

        async def get(url: str) -> Head:
            nonlocal found
            most = sum(stop - start + PART for start, stop in ranges) + PART
            async with self._asked(url, ranges) as answer:
                if answer.status in (200, 400, 416, 501):
                    raise AloneError(_ALONE)
                _check(answer)
                boundary = boundary_of(answer.headers.get("Content-Type", ""))
                if boundary is None:
                    raise AloneError(_ALONE)
                found, sizes = together(await _body(answer, most, count), boundary)
                return Head(sizes.pop() if len(sizes) == 1 else -1, b"", _version(answer), url, str(answer.url))

        try:
            await self._at(expect, get)
        except (AloneError, RefusedError):
            self._alone.add(_host(expect))
            return [AloneError(_ALONE)] * len(ranges)
        parts = [found.get(start, stop - start) for start, stop in ranges]
        if None in parts:
            self._alone.add(_host(expect))
        return [AloneError(_ALONE) if part is None else bytes(part) for part in parts]

    async def _get(self, url: str, start: int, stop: int, count: Count) -> Head:
        """Return a range, or all from `start` where the server sends the whole of a small file."""
        async with self._asked(url, [(start, stop)]) as answer:
            version, address = _version(answer), str(answer.url)
            if answer.status == 416 and answer.headers.get("Content-Range") == "bytes */0":
                return Head(0, b"", version, url, address)
            _check(answer)
            if answer.status == 206:
                first, size = content_range(answer.headers.get("Content-Range", ""))
                if first != start:
                    raise RefusedError(f"the server sends bytes from {first:,}, not from {start:,}")
                return Head(size, await _body(answer, stop - start, count), version, url, address)
            length = answer.content_length
            if length is not None and length > self._whole:
                raise RefusedError(f"the server sends whole files only, and this one has {length:,} bytes")
            data = await _body(answer, self._whole, count)
            return Head(len(data), data[start:stop] if start else data, version, url, address)

    @contextlib.asynccontextmanager
    async def _asked(self, url: str, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[Any]:
        """Ask for ranges; errors of the library are ours in the block."""
        asked = ",".join(f"{start}-{stop - 1}" for start, stop in ranges)
        headers = {"Range": f"bytes={asked}", "Accept-Encoding": "identity"}
        session = await self.set_session()
        try:
            async with session.get(self.encode_url(url), headers=headers) as answer:
                yield answer
        except (aiohttp.ServerTimeoutError, TimeoutError):
            raise TimeoutError from None
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as error:
            if isinstance(error, (aiohttp.ClientConnectorDNSError, aiohttp.ClientConnectorCertificateError)):
                raise RefusedError(
                    f"no connection: {error.strerror if hasattr(error, 'strerror') else error}"
                ) from None
            raise TransientError(f"the connection broke ({type(error).__name__})") from None
        except aiohttp.TooManyRedirects:
            raise RefusedError("too many redirects") from None


def _host(head: Head) -> str:
    return urlsplit(head.address or head.url).netloc


def _version(answer: Any) -> str | None:
    version: str | None = answer.headers.get("ETag", "").removeprefix("W/") or answer.headers.get("Last-Modified")
    return version


def _check(answer: Any) -> None:
    """Raise what a status means that is neither a range nor a file."""
    status = answer.status
    if status in (404, 410):
        raise FileNotFoundError
    if status in (401, 403):
        raise PermissionError
    if status in PASSING:
        raise TransientError(f"the server answers {status}", retry_after(answer.headers.get("Retry-After", "")))
    if status == 416:
        raise ChangedError
    if status not in (200, 206):
        raise RefusedError(f"the server answers {status}")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise RefusedError("the server compresses the file on its way, so that no ranges can be read")


async def _body(answer: Any, most: int, count: Count) -> bytes:
    data = bytearray()
    async for piece in answer.content.iter_any():
        count(len(piece))
        data += piece
        if len(data) > most:
            raise RefusedError(
                f"the server sends more than the {most:,} bytes that were asked for or may be taken whole"
            )
    return bytes(data)
