"""fsspec's HTTP file system with answers that are checked: its own takes whatever comes, also all of a large file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem

from .answers import (
    NO_HTTP,
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
from .pages import entries_of_page
from .sockets import Counter, SocketMaker

SessionMaker: TypeAlias = Callable[[SocketMaker, dict[str, Any]], aiohttp.ClientSession]
"""What makes a session, out of what makes its sockets and further options of aiohttp."""

_ALONE = "the server serves one range at a time"
_CONNECT_SECONDS = 15.0


def _session(sockets: SocketMaker, options: dict[str, Any]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(**options, connector=aiohttp.TCPConnector(socket_factory=sockets))


class RangedHTTP(HTTPFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """Reads byte ranges; a server that sends whole files instead is refused unless they are small."""

    def __init__(self, whole: int, seconds: float, session: SessionMaker = _session) -> None:
        """Set up; nothing is connected yet.

        Args:
            whole: bytes of a file that may be taken whole.
            seconds: for one request.
            session: makes the sessions.
        """
        counter = Counter()

        async def client(**options: Any) -> aiohttp.ClientSession:
            return session(counter.socket, options)

        options = {
            "timeout": aiohttp.ClientTimeout(total=seconds, sock_connect=min(_CONNECT_SECONDS, seconds)),
            "trust_env": True,  # proxies
            "auto_decompress": False,
        }
        super().__init__(encoded=True, client_kwargs=options, get_client=client)
        self._counter = counter
        self._whole = whole
        self._alone: set[str] = set()  # hosts that serve one range at a time

    def head_file(self, url: str, n: int, count: Count, seconds: float) -> Head:
        """Return the first `n` bytes of a file, or all of a shorter one."""
        self._counter.count = count
        head: Head = sync(self.loop, self._get, url, 0, n, timeout=seconds)
        return head

    def requests_for(self, head: Head, ranges: Sequence[tuple[int, int]]) -> int:
        """Return how many requests `read_ranges` will send."""
        return len(self._bundles(head, ranges))

    def read_ranges(
        self, head: Head, ranges: Sequence[tuple[int, int]], count: Count, seconds: float
    ) -> Sequence[bytes | BaseException]:
        """Return the bytes of (start, stop) ranges, an exception for each that failed."""
        self._counter.count = count
        found: dict[tuple[int, int], bytes | BaseException] = {}
        error: BaseException = TimeoutError()
        try:
            sync(self.loop, self._read_bundles, head, self._bundles(head, ranges), found, timeout=seconds)
        except TimeoutError as late:
            error = late
        return [found.get(one, error) for one in ranges]

    def _bundles(self, head: Head, ranges: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        return [[one] for one in ranges] if _host(head) in self._alone else bundles(ranges)

    async def _read_bundles(
        self,
        head: Head,
        bundled: Sequence[Sequence[tuple[int, int]]],
        found: dict[tuple[int, int], bytes | BaseException],
    ) -> None:
        """Put the bytes of each range into `found`; once one cannot be had, the others that wait are not asked for."""
        free = asyncio.Semaphore(TOGETHER)
        over: list[BaseException] = []

        async def read(bundle: Sequence[tuple[int, int]]) -> None:
            async with free:
                try:
                    if over:
                        raise over[0]
                    if len(bundle) > 1:
                        found.update(zip(bundle, await self._several(head, bundle), strict=True))
                        return
                    found[bundle[0]] = (await self._at(head, lambda url: self._get(url, *bundle[0]))).data
                except Exception as error:  # noqa: BLE001 - told of each range; a library may have errors of its own
                    if not isinstance(error, TransientError):
                        over.append(error)
                    found.update(dict.fromkeys(bundle, error))

        await asyncio.gather(*map(read, bundled))

    def entries(self, url: str, count: Count, seconds: float) -> list[Entry]:
        """Return what the links of a page name that lies directly below it: servers show directories as such pages."""
        page = self.head_file(url, self._whole, count, seconds)
        return entries_of_page(page.data, page.address)

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

    async def _several(self, expect: Head, ranges: Sequence[tuple[int, int]]) -> Sequence[bytes | BaseException]:
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
                found, sizes = together(await _body(answer, most), boundary)
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

    async def _get(self, url: str, start: int, stop: int) -> Head:
        """Return a range, or all from `start` where the server sends the whole of a small file."""
        async with self._asked(url, [(start, stop)]) as answer:
            version, address = _version(answer), str(answer.url)
            if answer.status == 416 and answer.headers.get("Content-Range") == "bytes */0":
                return Head(0, b"", version, url, address)
            if answer.status == 416 and not start:
                raise RefusedError("the server answers 416")
            _check(answer)
            if answer.status == 206:
                first, size = content_range(answer.headers.get("Content-Range", ""))
                if first != start:
                    raise RefusedError(f"the server sends bytes from {first:,}, not from {start:,}")
                return Head(size, await _body(answer, stop - start), version, url, address)
            length = answer.content_length
            if length is not None and length > self._whole:
                raise RefusedError(f"the server sends whole files only, and this one has {length:,} bytes")
            data = await _body(answer, self._whole)
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
            self._counter.count(0)  # was it broken here, as more came than may?
            if isinstance(error, (aiohttp.ClientConnectorDNSError, aiohttp.ClientConnectorCertificateError)):
                raise RefusedError(
                    f"no connection: {error.strerror if hasattr(error, 'strerror') else error}"
                ) from None
            raise TransientError(f"the connection broke ({type(error).__name__})") from None
        except aiohttp.TooManyRedirects:
            raise RefusedError("too many redirects") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):  # which quote it, whatever is in it
            raise RefusedError("a URL, or a redirect to one, that cannot be asked over HTTP") from None
        except aiohttp.ClientResponseError:  # likewise
            self._counter.count(0)
            raise RefusedError(NO_HTTP) from None


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
    if set(answer.headers.getall("Content-Encoding", ())) - {"identity"}:
        raise RefusedError("the server compresses the file on its way, so that no ranges can be read")


async def _body(answer: Any, most: int) -> bytes:
    data = bytearray()
    async for piece in answer.content.iter_any():
        data += piece
        if len(data) > most:
            raise RefusedError(
                f"the server sends more than the {most:,} bytes that were asked for or may be taken whole"
            )
    return bytes(data)
