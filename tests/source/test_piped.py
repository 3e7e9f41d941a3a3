"""What comes through a pipe."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from normsniff.errors import LimitExceeded, SourceError
from normsniff.limits import Limits
from normsniff.source import piped
from normsniff.source.piped import spool


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_pipe_can_be_read_at_any_place_until_it_is_closed(temporary: Path) -> None:
    data = bytes(range(256)) * 10_000
    kept = spool(io.BytesIO(data), Limits())
    kept.seek(1_000_003)
    assert kept.read(5) == data[1_000_003:1_000_008]
    with pickle.loads(pickle.dumps(kept)) as again:  # noqa: S301 - our own bytes
        assert again.read() == data
    assert len(list(temporary.iterdir())) == 1, "the copy of the other process does not own it"
    kept.close()
    kept.close()
    assert list(temporary.iterdir()) == []
    assert str(kept) == kept.name == "<stdin>"


def test_more_than_the_limit_is_refused_and_leaves_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piped, "_COPY", 10)
    with pytest.raises(LimitExceeded, match="bytes 110 is over the limit of 100"):
        spool(io.BytesIO(bytes(1000)), Limits(piped_bytes=100))
    assert list(temporary.iterdir()) == []


def test_a_file_is_not_copied(temporary: Path) -> None:
    path = temporary / "model"
    path.write_bytes(b"weights")
    with path.open("rb") as file:
        kept = spool(file, Limits(piped_bytes=1))
        assert kept.read() == b"weights"
    kept.close()
    assert [one.name for one in temporary.iterdir()] == ["model"]


def test_what_cannot_be_read_is_our_own_error(temporary: Path) -> None:
    class Broken(io.RawIOBase):
        def read(self, _n: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(SourceError, match="<stdin>: Input/output error"):
        spool(cast(BinaryIO, Broken()), Limits())
    assert list(temporary.iterdir()) == []
