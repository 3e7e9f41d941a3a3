"""Bodies on disk: bounded each and together, gone afterwards, never waiting without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from normsniff.serve.problems import Problem
from normsniff.serve.spool import Spool


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spool]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = Spool(1000)
    yield found
    found.close()
    assert list(tmp_path.iterdir()) == []


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


def left(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("*/*"))


def test_a_body_lies_in_a_private_file_for_the_length_of_the_block(spool: Spool, tmp_path: Path) -> None:
    async def test() -> None:
        async with spool.holding(pieces(400, 0, 600), None) as path:
            assert path.read_bytes() == b"x" * 1000
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.parent.stat().st_mode & 0o777 == 0o700
            assert spool.held == 1000
        assert spool.held == 0
        assert left(tmp_path) == []

    run(test)


@pytest.mark.parametrize(("length", "sizes"), [(1001, ()), (None, (600, 401)), (10, (600, 401))])
def test_a_body_that_is_too_large_leaves_nothing(
    spool: Spool, tmp_path: Path, length: int | None, sizes: tuple[int, ...]
) -> None:
    async def test() -> None:
        with pytest.raises(Problem) as caught:
            async with spool.holding(pieces(*sizes), length):
                raise AssertionError
        assert caught.value.status == 413
        assert (spool.held, left(tmp_path)) == (0, [])

    run(test)


def test_all_bodies_together_are_bounded(spool: Spool) -> None:
    async def test() -> None:
        async with spool.holding(pieces(1000), None), spool.holding(pieces(900), None):
            with pytest.raises(Problem) as caught:
                async with spool.holding(pieces(50, 51), None):
                    raise AssertionError
            assert caught.value.status == 429
            assert caught.value.headers["Retry-After"]
            async with spool.holding(pieces(100), None):
                assert spool.held == 2000

    run(test)


def test_who_sends_nothing_loses_the_place(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normsniff.serve.spool._STALL", 0.05)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    async def test() -> None:
        with pytest.raises(Problem) as caught:
            async with spool.holding(stalled(), None):
                raise AssertionError
        assert caught.value.status == 408
        assert (spool.held, left(tmp_path)) == (0, [])

    run(test)


def test_who_sends_next_to_nothing_loses_the_place(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normsniff.serve.spool._STALL", 0.3)

    async def dribbling() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x"
            await asyncio.sleep(0.01)

    async def test() -> None:
        with pytest.raises(Problem) as caught:
            async with spool.holding(dribbling(), None):
                raise AssertionError
        assert (caught.value.status, caught.value.slug) == (408, "too-slow")

    run(test)


def test_a_sender_that_leaves_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    async def leaving() -> AsyncIterator[bytes]:
        yield b"x" * 10
        raise ConnectionError

    async def test() -> None:
        with pytest.raises(ConnectionError):
            async with spool.holding(leaving(), None):
                raise AssertionError
        assert (spool.held, left(tmp_path)) == (0, [])

    run(test)
