"""s3fs with reads that are pinned to one version of an object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import ClientError
from botocore.exceptions import HTTPClientError
from botocore.session import get_session
from fsspec.asyn import sync
from s3fs import S3FileSystem

from ...errors import LimitExceeded, redact_url
from .answers import MOST_ENTRIES, NO_HTTP, ChangedError, Entry, Head, RefusedError, TransientError, content_range
from .files import Count, OneByOne, cat_ranges
from .sockets import Counter

_MAX_PAGES = MOST_ENTRIES // 1000  # of a listing, 1,000 keys each
_PAGE_BYTES = 4_000_000  # keys of 1 kB, and half as much about each of them
_CONNECT_SECONDS = 15.0


class _Page:
    """Counts what comes of a listing: its pages, and the bytes of each, as a library holds all of one as objects."""

    def __init__(self, where: str, count: Count) -> None:
        self._where, self._count = where, count
        self._pages = self._bytes = 0

    def turn(self) -> bool:
        """Begin the next page; return whether there may be one."""
        self._pages += 1
        self._bytes = 0
        return self._pages <= _MAX_PAGES

    def count(self, n: int) -> None:
        """Count bytes; see `Count`."""
        self._count(n)
        self._bytes += n
        if self._bytes > _PAGE_BYTES:
            raise LimitExceeded(self._where, "bytes of a page of a listing", _PAGE_BYTES, self._bytes)


class PinnedS3(OneByOne, S3FileSystem):  # type: ignore[misc]  # s3fs is not typed
    """Asks with every range for the object whose head was read. What may pass is tried again by s3fs and botocore."""

    cachable = False  # credentials may be others for the next model

    def __init__(self, seconds: float) -> None:
        """Set up; nothing is connected yet. Where there are no credentials it asks anonymously, as public buckets do.

        Args:
            seconds: for one request.
        """
        counter = Counter()
        super().__init__(
            anon=get_session().get_credentials() is None,
            use_listings_cache=False,
            config_kwargs={
                "read_timeout": seconds,
                "connect_timeout": min(seconds, _CONNECT_SECONDS),
                "connector_args": {"socket_factory": counter.socket},
            },
        )
        self._counter = counter

    def head_file(self, url: str, n: int, count: Count, seconds: float) -> Head:
        """Return the first `n` bytes of a file, or all of a shorter one."""
        head: Head = self._counted(count, self._head_file, url, n, timeout=seconds)
        return head

    def _counted(self, count: Count, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Return what a coroutine does. A connection over which too much came is broken; libraries have many words for
        that, and try again.
        """
        self._counter.count = count
        try:
            return sync(self.loop, call, *args, **options)
        except Exception:
            count(0)
            raise

    async def _head_file(self, url: str, n: int) -> Head:
        answer, data = await self._get(url, 0, n)
        if not answer:
            return Head(0, b"", None, url)
        return Head(content_range(answer["ContentRange"])[1], data, answer.get("ETag"), url)

    def read_ranges(
        self, head: Head, ranges: Sequence[tuple[int, int]], count: Count, seconds: float
    ) -> Sequence[bytes | BaseException]:
        """Return the bytes of (start, stop) ranges, an exception for each that failed."""
        self._counter.count = count
        found = cat_ranges(self, head.url, ranges, seconds, expect=head)
        count(0)
        return found

    def entries(self, url: str, count: Count, seconds: float) -> list[Entry]:
        """Return what is in a directory."""
        page = _Page(redact_url(url), count)
        found: list[Entry] = self._counted(page.count, self._entries, url, page, timeout=seconds)
        return found

    async def _entries(self, url: str, page: _Page) -> list[Entry]:
        bucket, key, _ = self.split_path(url.rstrip("/"))
        below = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/"}
        found: list[Entry] = []
        while len(found) <= MOST_ENTRIES and page.turn():
            answer = await self._call_s3("list_objects_v2", **below)
            found += [Entry(_last(one["Prefix"]), True) for one in answer.get("CommonPrefixes", ()) if "Prefix" in one]
            keys = [one["Key"] for one in answer.get("Contents", ()) if "Key" in one]
            found += [Entry(_last(one), False) for one in keys if not one.endswith("/")]
            if not answer.get("IsTruncated"):
                return found
            below["ContinuationToken"] = answer.get("NextContinuationToken", "")
        raise RefusedError(f"more than {min(len(found), MOST_ENTRIES):,} files in one directory")

    async def _cat_file(self, url: str, start: int, end: int, expect: Head) -> bytes:
        """Return the bytes from `start` to `end` of the object that `expect` is the head of."""
        _, data = await self._get(url, start, end, **({"IfMatch": expect.version} if expect.version else {}))
        return data

    async def _get(self, url: str, start: int, stop: int, **condition: str) -> tuple[dict[str, Any], bytes]:
        """Return the answer and its bytes; both are empty for an empty object."""
        bucket, key, _ = self.split_path(url)
        if not key:
            raise IsADirectoryError
        ranged = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{stop - 1}", **condition}
        try:
            answer: dict[str, Any] = await self._call_s3("get_object", **ranged)
            async with answer["Body"] as body:
                first, _ = content_range(answer.get("ContentRange", ""))  # refuses what sends the whole instead
                if first != start or answer["ContentLength"] > stop - start:
                    raise RefusedError("the server sends other bytes than were asked for")
                return answer, await body.read()
        except HTTPClientError as error:
            if type(error) is not HTTPClientError:  # a kind of its own says what broke, and may pass
                raise
            raise RefusedError(NO_HTTP) from None  # which quotes it, whatever is in it
        except ClientError as error:
            raise TransientError(f"the connection broke ({type(error).__name__})") from None
        except (FileNotFoundError, PermissionError, TimeoutError, RefusedError):
            raise
        except OSError as error:
            response = getattr(error.__cause__, "response", {})
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 416 and not start:
                return {}, b""
            if status in (412, 416):
                raise ChangedError from None
            if status is not None:
                raise RefusedError(f"the server answers {status} ({response.get('Error', {}).get('Code')})") from None
            raise


def _last(key: str) -> str:
    return key.rstrip("/").rpartition("/")[2]
