"""The ingestion example does what its page says, in SQLite and, where a server is given, in PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.manifest import FIXTURES, ROOT

sql = pytest.importorskip("sqlalchemy")
pytest.importorskip("watchfiles")

SCRIPT = ROOT / "examples" / "ingest.py"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of an empty database; PostgreSQL's from NORMSNIFF_TEST_POSTGRESQL, if it is set."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'records.db'}"
        return
    url = os.environ.get("NORMSNIFF_TEST_POSTGRESQL")
    if not url:
        pytest.skip("NORMSNIFF_TEST_POSTGRESQL names no database")
    yield url
    with sql.create_engine(url, poolclass=sql.NullPool).begin() as connection:
        connection.execute(sql.text("drop table if exists uploads"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a good upload, one that lies, one that is broken, and one that is still being written."""
    uploads = tmp_path / "uploads"
    liar = uploads / "liar"
    liar.mkdir(parents=True)
    shutil.copy(FIXTURES / "gpt2-ln" / "model.safetensors", liar)
    (liar / "config.json").write_text(json.dumps({"model_type": "llama", "rms_norm_eps": 1e-5}))
    shutil.copy(FIXTURES / "llama-rms.Q8_0.gguf", uploads / "good.gguf")
    (uploads / "broken.gguf").write_bytes(b"GGUF\3")
    (uploads / ".half.gguf").write_bytes(b"GG")
    return uploads


def rows(database: str) -> dict[str, Any]:
    with sql.create_engine(database, poolclass=sql.NullPool).connect() as connection:
        found = connection.execute(sql.text("select name, decision, reason, label, confidence, record from uploads"))
        return {row.name: row for row in found}


def test_uploads_are_stored_and_decided(folder: Path, database: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), "--database", database, "--once"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(done.stdout.split("\n"))[1:] == ["accepted good.gguf", "rejected broken.gguf", "rejected liar"]
    stored = rows(database)
    assert set(stored) == {"good.gguf", "broken.gguf", "liar"}
    assert stored["good.gguf"].label == "RMSNorm"
    assert stored["good.gguf"].confidence > 0.9
    assert "declared evidence says RMSNorm" in stored["liar"].reason
    assert stored["broken.gguf"].label is None
    assert {path.name.partition("-")[2] for path in (folder / "rejected").iterdir()} == {"broken.gguf", "liar"}
    assert (folder / ".half.gguf").exists()


def test_it_watches(tmp_path: Path) -> None:
    folder, database = tmp_path / "uploads", f"sqlite:///{tmp_path / 'records.db'}"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), "--database", database], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            for name in ("a.gguf", "b.gguf"):
                shutil.copy(FIXTURES / "llama-rms.Q8_0.gguf", folder / f".{name}")
                (folder / f".{name}").rename(folder / name)
                assert process.stdout is not None
                assert process.stdout.readline() == f"accepted {name}\n"
        finally:
            process.send_signal(signal.SIGTERM)
    assert not list(folder.glob("*.gguf"))
