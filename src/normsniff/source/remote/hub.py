"""Repositories of the Hugging Face Hub, read at one commit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
from huggingface_hub.hf_file_system import HfFileSystemResolvedRepositoryPath

from .answers import PASSING, TOGETHER, Entry, Head, TransientError, retry_after
from .files import Count, OneByOne, entries_of, size_of
from .hooks import install, watched


class Hub(OneByOne):
    """`HfFileSystem` with every path fixed to the commit that its revision is at first, and reads in threads."""

    def __init__(self) -> None:
        install()
        self._files = HfFileSystem(skip_instance_cache=True)
        self._commits: dict[tuple[str, str, str], str] = {}

    def head_file(self, url: str, n: int, count: Count, seconds: float) -> Head:
        """Return the first `n` bytes of a file, or all of a shorter one."""
        with watched(count, seconds), _translated():
            path = self._pinned(url)
            size = size_of(self._files.info(path))
            return Head(size, self._cat(path, 0, min(n, size)) if size else b"", None, path)

    def read_ranges(
        self, head: Head, ranges: Sequence[tuple[int, int]], count: Count, seconds: float
    ) -> Sequence[bytes | BaseException]:
        """Return the bytes of (start, stop) ranges, an exception for each that failed."""
        with watched(count, seconds), ThreadPoolExecutor(min(TOGETHER, len(ranges))) as pool:
            running = [pool.submit(copy_context().run, self._cat, head.url, start, stop) for start, stop in ranges]
        return [one.exception() or one.result() for one in running]

    def entries(self, url: str, count: Count, seconds: float) -> list[Entry]:
        """Return what is in a directory."""
        with watched(count, seconds), _translated():
            path = self._pinned(url)
            if self._files.info(path)["type"] != "directory":
                raise NotADirectoryError
            return entries_of(self._files.ls(path, detail=True))

    def _cat(self, path: str, start: int, stop: int) -> bytes:
        with _translated():
            data: bytes = self._files.cat_file(path, start, stop, cache_type="none")
        return data

    def _pinned(self, url: str) -> str:
        place = self._files.resolve_path(url)
        if not isinstance(place, HfFileSystemResolvedRepositoryPath):  # a bucket has no commits
            return url
        key = place.repo_type, place.repo_id, place.revision
        if key not in self._commits:
            info = HfApi(endpoint=self._files.endpoint).repo_info(
                place.repo_id, repo_type=place.repo_type, revision=place.revision
            )
            self._commits[key] = info.sha or place.revision
        repository = place.root.partition("@")[0]
        return f"{repository}@{self._commits[key]}/{place.path_in_repo}".rstrip("/")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Say with our own exceptions what a status means that the Hub's library passes on."""
    try:
        yield
    except FileNotFoundError as error:  # which the file system makes of a repository that is gated, too
        if isinstance(error.__cause__, GatedRepoError):
            raise PermissionError from error
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise PermissionError from error
        if status in PASSING:
            wait = retry_after(error.response.headers.get("Retry-After", ""))
            raise TransientError(f"the server answers {status}", wait) from error
        raise
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("httpx")}  # or its heir
        if "TimeoutException" in kinds:
            raise TimeoutError from error
        if "TransportError" in kinds:
            raise TransientError(f"the connection broke ({type(error).__name__})") from error
        raise
