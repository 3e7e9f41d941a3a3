from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff.errors import SourceError
from normsniff.source.local import ByteSource, BytesSource, Counted, FileSource, StreamSource
from normsniff.source.views import Extent, JoinedSource, WindowSource

DATA = bytes(range(256))


def all_sources(directory: Path) -> list[ByteSource]:
    path = directory / "data"
    path.write_bytes(DATA)
    around = BytesSource(b"ab" + DATA + b"cd")
    return [BytesSource(DATA), FileSource(path), StreamSource(io.BytesIO(DATA)), WindowSource(around, 2, 256, "data")]


def test_all_sources_read_the_same_and_count(tmp_path: Path) -> None:
    for source in all_sources(tmp_path):
        assert source.size == 256
        assert bytes(source.read_at(3, 5)) == DATA[3:8]
        assert bytes(source.read_at(256, 0)) == b""
        assert bytes(source.read_at(0, 256)) == DATA
        assert source.bytes_read == 256, "each byte once"
        source.close()


def test_all_sources_read_strips_as_they_read_the_ranges(tmp_path: Path) -> None:
    for source in all_sources(tmp_path):
        assert isinstance(source, Counted)
        for start in (3, 5):  # side by side, as the columns of a matrix are read
            data, stride = source.read_strips(start, 2, 50, 5)
            strips = [bytes(data[i * stride : i * stride + 2]) for i in range(5)]
            assert strips == [DATA[start + i * 50 : start + i * 50 + 2] for i in range(5)]
        assert source.bytes_read == 5 * 4
        source.read_at(50, 10)
        assert source.bytes_read == 5 * 4 + 6
        for outside in ((3, 2, 64, 5), (-1, 2, 50, 2)):
            with pytest.raises(SourceError):
                source.read_strips(*outside)
        source.close()


@pytest.mark.parametrize(("offset", "n"), [(0, 257), (256, 1), (-1, 1), (0, -1), (1 << 70, 1), (1, 1 << 70)])
def test_no_source_reads_outside_of_itself(tmp_path: Path, offset: int, n: int) -> None:
    for source in all_sources(tmp_path):
        with pytest.raises(SourceError):
            source.read_at(offset, n)
        assert source.bytes_read == 0


@settings(max_examples=40, deadline=None)
@given(start=st.integers(-3, 12), size=st.integers(-3, 12), offset=st.integers(-3, 12), n=st.integers(-3, 12))
def test_windows_stay_inside_their_parent(start: int, size: int, offset: int, n: int) -> None:
    parent = BytesSource(DATA[:10])
    try:
        window = WindowSource(parent, start, size, "member")
    except SourceError:
        assert start < 0 or size < 0 or start + size > 10
        return
    try:
        found = bytes(window.read_at(offset, n))
    except SourceError:
        assert offset < 0 or n < 0 or offset + n > size
        return
    assert found == DATA[start : start + size][offset : offset + n]
    assert len(found) == n


def test_views_outlive_close(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    source = FileSource(path)
    view = source.read_at(0, 4)
    source.close()
    source.close()
    assert bytes(view) == DATA[:4]


def test_an_empty_file_has_no_bytes(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    source = FileSource(path)
    assert source.size == 0
    assert bytes(source.read_at(0, 0)) == b""
    with pytest.raises(SourceError):
        source.read_at(0, 1)
    source.close()


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path, "a directory"),
        (tmp_path / "absent", "No such file"),
        (tmp_path / "absent" / "deeper", "No such file"),
        (tmp_path / ("x" * 300), "too long"),
        (Path("nul\0byte"), "null"),
    ):
        with pytest.raises(SourceError, match=reason):
            FileSource(path)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(SourceError):
        FileSource(loop)


def refused_within_seconds(path: Path) -> SourceError | None:
    found: list[SourceError] = []

    def attempt() -> None:
        try:
            FileSource(path)
        except SourceError as error:
            found.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(10)
    return found[0] if found else None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_refused_and_does_not_block(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    error = refused_within_seconds(fifo)
    assert error is not None
    assert error.detail == "not a regular file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_what_is_no_file_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a device may react to being opened"))
    with pytest.raises(SourceError):
        FileSource(tmp_path / "fifo")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices here")
def test_an_endless_device_is_refused() -> None:
    assert refused_within_seconds(Path("/dev/zero")) is not None


def test_a_fifo_that_takes_the_place_of_a_file_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs here")
    path, fifo = tmp_path / "file", tmp_path / "fifo"
    path.write_bytes(DATA)
    os.mkfifo(fifo)
    status = path.stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    assert refused_within_seconds(fifo) is not None


class Dribble(io.RawIOBase):
    """An unbuffered file that returns three bytes at most."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._inner.read(min(size, 3))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()


def test_short_reads_of_a_stream_are_continued() -> None:
    source = StreamSource(cast(BinaryIO, Dribble(DATA)))
    assert bytes(source.read_at(5, 100)) == DATA[5:105]


def test_a_stream_that_shrinks_is_an_error() -> None:
    file = io.BytesIO(DATA)
    source = StreamSource(file)
    file.truncate(10)
    with pytest.raises(SourceError, match="10 came"):
        source.read_at(0, 20)


def test_a_stream_stays_open_and_is_called_by_its_name() -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(DATA)
        source = StreamSource(cast(BinaryIO, file))
        assert source.name == file.name
        assert bytes(source.read_at(1, 2)) == DATA[1:3]
        source.close()
        assert not file.closed


class _NoSeek:
    """A pipe, for example."""


def test_streams_without_positions() -> None:
    closed = io.BytesIO()
    closed.close()
    for file in (_NoSeek(), closed):
        with pytest.raises(SourceError, match="not seekable"):
            StreamSource(cast(BinaryIO, file))


def test_a_closed_stream_and_a_text_stream_are_errors() -> None:
    file = io.BytesIO(DATA)
    source = StreamSource(file)
    file.close()
    with pytest.raises(SourceError):
        source.read_at(0, 1)
    with pytest.raises(SourceError):
        StreamSource(cast(BinaryIO, io.StringIO("text"))).read_at(0, 4)


def test_any_bytes_like_object_can_be_a_source() -> None:
    for data in (bytearray(DATA), memoryview(DATA), memoryview(DATA).cast("I")):
        assert bytes(BytesSource(data).read_at(0, 256)) == DATA
    assert bytes(BytesSource(memoryview(DATA)[::2]).read_at(0, 3)) == DATA[:6:2]


class Noting(BytesSource):
    """Notes what it is told to fetch."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.fetched: list[tuple[int, int]] = []
        self.asked = 0

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        self.fetched += ranges
        self.asked += 1


def test_what_will_be_read_is_passed_on_to_where_it_lies() -> None:
    first, second = Noting(DATA), Noting(DATA)
    WindowSource(first, 10, 100, "member").prefetch([(0, 5), (20, 80)])
    assert first.fetched == [(10, 5), (30, 80)]
    first.fetched.clear()
    JoinedSource([Extent(first, 10, 20), Extent(second, 100, 110)], "joined").prefetch([(2, 3), (8, 4), (15, 5)])
    assert first.fetched == [(12, 3), (18, 2)]
    assert second.fetched == [(100, 2), (105, 5)]


def test_pieces_of_which_nothing_will_be_read_are_not_asked() -> None:
    source = Noting(DATA)
    joined = JoinedSource([Extent(source, at, at + 1) for at in range(256)], "joined")
    joined.prefetch([(7, 0), (9, 1), (9, 1), (250, 100)])
    assert source.fetched == [(9, 1), (9, 1), *((at, 1) for at in range(250, 256))]
    assert source.asked == 7  # a file in a million pieces has a few million ranges


def test_a_prefetch_reads_nothing_from_local_sources(tmp_path: Path) -> None:
    for source in all_sources(tmp_path):
        source.prefetch([(0, 5), (100, 10_000)])
        assert source.bytes_read == 0
        source.close()


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(1 << 20))
    source = FileSource(path)
    os.truncate(path, 5000)
    assert len(source.read_at(0, 5000)) == 5000
    with pytest.raises(SourceError, match="cut"):
        source.read_at(4000, 2000)
    source.close()


@settings(max_examples=50, deadline=None)
@given(reads=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 56)), max_size=40))
def test_bytes_that_are_read_twice_count_once(reads: list[tuple[int, int]]) -> None:
    source = BytesSource(DATA)
    seen: set[int] = set()
    for offset, n in reads:
        source.read_at(offset, n)
        seen.update(range(offset, offset + n))
    assert source.bytes_read == len(seen)


def test_counting_many_reads_takes_little_memory() -> None:
    source = BytesSource(bytes(100_000))
    for offset in range(0, 100_000, 2):
        source.read_at(offset, 2)
    assert len(source._ranges) < 2000
    assert source.bytes_read == 100_000
