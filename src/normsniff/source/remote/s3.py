"""s3fs with reads that are pinned to one version of an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import ClientError
from botocore.session import get_session
from fsspec.asyn import sync
from s3fs import S3FileSystem

from .answers import ChangedError, Entry, Head, RefusedError, TransientError, content_range
from .files import Count, OneByOne, cat_ranges

_MAX_PAGES = 20  # of a listing, 1,000 keys each


def options(seconds: float) -> dict[str, Any]:
    """Return how to connect: anonymously where there are no credentials, as public buckets need none."""
    return {
        "anon": get_session().get_credentials() is None,
        "skip_instance_cache": True,
        "use_listings_cache": False,
        "config_kwargs": {"read_timeout": seconds, "connect_timeout": min(seconds, 15.0)},
    }


class PinnedS3(OneByOne, S3FileSystem):  # type: ignore[misc]  # s3fs is not typed
    """Asks with every range for the object whose head was read. What may pass is tried again by s3fs and botocore."""

    def head_file(self, url: str, n: int, count: Count, seconds: float) -> Head:
        """Return the first `n` bytes of a file, or all of a shorter one."""
        head: Head = sync(self.loop, self._head_file, url, n, count, timeout=seconds)
        return head

    async def _head_file(self, url: str, n: int, count: Count) -> Head:
        answer, data = await self._get(url, 0, n)
        if not answer:
            return Head(0, b"", None, url)
        count(len(data))
        return Head(content_range(answer["ContentRange"])[1], data, answer.get("ETag"), url)

    def read_ranges(
        self, head: Head, ranges: Sequence[tuple[int, int]], count: Count, seconds: float
    ) -> Sequence[bytes | BaseException]:
        """Return the bytes of (start, stop) ranges, an exception for each that failed."""
        count(sum(stop - start for start, stop in ranges))
        return cat_ranges(self, head.url, ranges, seconds, expect=head)

    def entries(self, url: str, _count: Count, seconds: float) -> list[Entry]:
        """Return what is in a directory."""
        found: list[Entry] = sync(self.loop, self._entries, url, timeout=seconds)
        return found

    async def _entries(self, url: str) -> list[Entry]:
        bucket, key, _ = self.split_path(url.rstrip("/"))
        below = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/"}
        found: list[Entry] = []
        for _ in range(_MAX_PAGES):
            page = await self._call_s3("list_objects_v2", **below)
            found += [Entry(_last(one["Prefix"]), True) for one in page.get("CommonPrefixes", ())]
            found += [
                Entry(_last(one["Key"]), False) for one in page.get("Contents", ()) if not one["Key"].endswith("/")
            ]
            if not page.get("IsTruncated"):
                return found
            below["ContinuationToken"] = page["NextContinuationToken"]
        raise RefusedError(f"more than {len(found):,} files in one directory")

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
