"""What a scan has answered so far, in a file that survives the end of the process at any moment.

An SQLite database beside the output. A Parquet file cannot be appended to, and a text file can end in half a line;
a database commits every answer whole, and its primary key is the promise of one row an input. Records are stored
compressed, as they are ten times larger than need be. The output is written from it at the end.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..errors import OutputError
from ..record import Answer, Classification, Duplicate, Failure
from .identity import Identity

_KINDS: dict[str, type[Answer]] = {"answered": Classification, "failed": Failure, "duplicate": Duplicate}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_TABLES = """
CREATE TABLE IF NOT EXISTS settings (text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, content BLOB, record BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS contents (id BLOB PRIMARY KEY, key BLOB NOT NULL, path TEXT NOT NULL) WITHOUT ROWID;
"""
# What a scan of before had met but not answered is met again; so are duplicates that wait for such an answer.
_FORGET = """
DELETE FROM answers WHERE content IS NOT NULL AND content NOT IN
    (SELECT id FROM contents WHERE key IN (SELECT key FROM answers));
DELETE FROM contents WHERE key NOT IN (SELECT key FROM answers);
"""


class Journal:
    """The answers of one scan. It is a `batch.Known`: content that was met is kept in it too.

    Args:
        path: the file; one process at a time may have it open.
        settings: what the answers depend on besides the inputs; a scan goes on only under the same.

    Raises:
        OutputError: it cannot be opened, a symbolic link stands there, another process has it open, it is no journal,
            or its settings differ.
    """

    def __init__(self, path: Path, settings: str) -> None:
        self._path = path
        _make(path)
        with contextlib.ExitStack() as failed, self._guarded():
            # Autocommit: every statement is whole once it returns. `synchronous` is about power cuts, after which a
            # journal may lack its last answers; the end of a process loses nothing that was written.
            self._data = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
            failed.callback(self.close)
            self._data.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._data.execute("PRAGMA journal_mode=WAL")
            self._data.execute("PRAGMA synchronous=NORMAL")
            self._data.executescript(f"BEGIN IMMEDIATE;{_TABLES}{_FORGET}COMMIT;")
            stored = self._data.execute("SELECT text FROM settings").fetchone()
            if stored is None:
                self._data.execute("INSERT INTO settings VALUES (?)", (settings,))
            elif stored[0] != settings:
                raise OutputError(str(path), f"was begun with other settings ({stored[0]}); now they are {settings}")
            failed.pop_all()

    def __contains__(self, key: bytes) -> bool:
        return self._data.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone() is not None

    def __len__(self) -> int:
        return int(self._data.execute("SELECT count(*) FROM answers").fetchone()[0])

    def add(self, key: bytes, answer: Answer) -> None:
        """Keep the answer to the input that `key` stands for (`Identity.key`); a second one is dropped.

        Raises:
            OutputError: it cannot be written.
        """
        content = bytes.fromhex(answer.content_id) if isinstance(answer, Duplicate) else None
        row = (key, _NAMES[type(answer)], content, zlib.compress(msgspec.json.encode(answer), 1))
        with self._guarded():
            self._data.execute("INSERT OR IGNORE INTO answers (key, kind, content, record) VALUES (?, ?, ?, ?)", row)

    def setdefault(self, content: bytes, first: Identity, /) -> Identity:
        """Return the input in which `content` was met first, which is `first` if it never was."""
        with self._guarded():
            self._data.execute("INSERT OR IGNORE INTO contents VALUES (?, ?, ?)", (content, *first))
            return Identity(*self._data.execute("SELECT key, path FROM contents WHERE id = ?", (content,)).fetchone())

    def answers(self) -> Iterator[Answer]:
        """Yield the answers in the order in which they came."""
        with self._guarded():
            for kind, record in self._data.execute("SELECT kind, record FROM answers ORDER BY number"):
                yield msgspec.json.decode(zlib.decompress(record), type=_KINDS[kind])

    def close(self) -> None:
        """Close the file; it can be opened again."""
        self._data.close()

    def remove(self) -> None:
        """Close and delete the file, once the output is written."""
        self.close()
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._path}{end}")  # noqa: PTH108 - the path with an ending

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            busy = "locked" in str(error)
            raise OutputError(str(self._path), "another scan is writing it" if busy else f"journal: {error}") from error


def _make(path: Path) -> None:
    """Make the file if it is not there, without following a link: SQLite would, and write where the link leads."""
    try:
        if path.is_symlink():
            raise OutputError(str(path), "a symbolic link stands in its place")
        with contextlib.suppress(FileNotFoundError):
            os.lstat(f"{path}-journal")  # SQLite's: a name that is too long with this ending is better told before
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise OutputError(str(path), getattr(error, "strerror", None) or str(error)) from error
