"""`normsniff scan`: one row an input whatever the input does, and whenever the scan itself ends."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import normsniff
from normsniff.batch.identity import Identity
from normsniff.batch.journal import Journal
from normsniff.batch.scan import find_inputs, finish
from normsniff.batch.tally import Tally, ranked
from normsniff.cli import cli
from normsniff.errors import OutputError, SourceError
from normsniff.record import Duplicate, Failure
from normsniff.render.row import Row, row_of
from tests.helpers.calls import MEMORY
from tests.helpers.manifest import FIXTURES
from tests.helpers.servers import RangeServer

LN = FIXTURES / "gpt2-ln.Q8_0.gguf"
RMS = FIXTURES / "llama-rms"
DOCS = FIXTURES.parent / "docs" / "scan.md"


def start(*args: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "normsniff", "scan", *map(str, args)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def run(*args: Any) -> Result:
    return CliRunner().invoke(cli, ["scan", *map(str, args)], prog_name="normsniff")


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_every_input_gives_one_row_whatever_it_does(hostile: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    programs = {
        "hang": ("while True: pass", "timeout"),
        "hang_in_c": ("ctypes.PyDLL(None).sleep(600)", "timeout"),
        "segfault": ("ctypes.string_at(0)", "crashed"),
        "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "crashed"),
        "leaves": ("os._exit(0)", "crashed"),
        "eats": (f"bytearray({2 * MEMORY})", "memory"),
        "fails": ("1 / 0", "malformed"),
    }
    for name, (program, _) in programs.items():
        (lake / name).mkdir(parents=True)
        (lake / name / "model.bin").write_bytes(b"HOSTILE" + program.encode())
    shutil.copy(LN, lake / "good.gguf")
    shutil.copy(LN, lake / "zz-copy.gguf")
    listed = tmp_path / "more.txt"
    listed.write_text(f"# two that are not in the lake\n\n{RMS}\nno-such-file.gguf\n")
    output = tmp_path / "out.jsonl"
    scan = start(lake, listed, "-o", output, "-j", 2, "--timeout", 3, "--memory", MEMORY)
    _, said = scan.communicate(timeout=120)
    assert scan.returncode == 2
    assert "Traceback" not in said
    got = {row["path"]: row for row in rows(output)}
    assert len(got) == len(rows(output)) == len(programs) + 4
    for name, (_, code) in programs.items():
        assert got[str(lake / name / "model.bin")]["error"]["code"] == code
    assert got[str(RMS)]["label"] == "RMSNorm"
    assert got["no-such-file.gguf"]["error"]["type"] == "SourceError"
    copies = [got[str(lake / "good.gguf")], got[str(lake / "zz-copy.gguf")]]
    (copy,) = (row for row in copies if "duplicate_of" in row)
    (original,) = (row for row in copies if "label" in row)
    assert copy["duplicate_of"] == original["path"]
    for line in (r"LayerNorm +1\n", r"duplicates +1\n", r"failed: crashed +3\n", r"failed: timeout +2\n", "11 inputs"):
        assert re.search(line, said)


def test_an_interrupted_scan_goes_on(hostile: Path, tmp_path: Path) -> None:
    """Ctrl-C, then kill -9, then to the end: one row an input, and only what was in flight is read twice."""
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    inputs = [tmp_path / f"{n:03}.bin" for n in range(200)]  # so many that no signal comes after the end
    for path in inputs:
        path.write_bytes(b"HOSTILE" + f"time.sleep(0.02); raise ValueError({path.name!r})".encode())
    listed = tmp_path / "inputs.txt"
    listed.write_text("".join(f"{path}\n" for path in inputs))
    output = tmp_path / "out.parquet"
    arguments = (listed, "-o", output, "-j", 2, "--no-dedupe")
    ends = []
    for number, end in enumerate((signal.SIGINT, signal.SIGKILL)):
        scan = start(*arguments, *(["--resume"] if number else []))
        while len(hostile.read_text().splitlines()) < 13 * (number + 1):
            assert scan.poll() is None, scan.communicate()
            time.sleep(0.005)
        scan.send_signal(end)
        ends.append((scan.communicate(timeout=60)[1], scan.returncode))
        assert not output.exists()
        assert "--resume" in run(*arguments).stderr, "or what was answered would be lost"
    assert [code for _, code in ends] == [130, -signal.SIGKILL]
    assert "--resume" in ends[0][0]
    last = start(*arguments, "--resume")
    said = last.communicate(timeout=60)[1]
    assert last.returncode == 2, "these files are no models"
    assert sorted(pq.read_table(output)["path"].to_pylist()) == [str(path) for path in inputs]
    assert "200 inputs" in said
    readings = hostile.read_text().splitlines()
    assert set(readings) == {str(path) for path in inputs}
    assert len(readings) - len(inputs) <= 2 * 2 * 2, "two processes, two inputs each, two interruptions"
    assert sorted(path.name for path in tmp_path.glob("*out.parquet*")) == ["out.parquet"]
    assert "nothing to resume" in run(*arguments, "--resume").stderr


def test_a_terminal_gets_a_bar_with_rate_and_remaining_time(tmp_path: Path) -> None:
    for n in range(3):
        shutil.copy(LN, tmp_path / f"{n}.gguf")
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "normsniff", "scan", str(tmp_path), "-o", str(tmp_path / "o.csv"), "-j", "1"]
    with subprocess.Popen(command, stderr=child, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}) as scan:
        os.close(child)
        output = b""
        while piece := _read(parent):
            output += piece
    os.close(parent)
    assert scan.returncode == 0
    assert b"3/3" in output
    assert re.search(rb"\d/s", output)
    assert re.search(rb"\d:\d\d:\d\d", output)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux reports the closed end of a terminal so
        return b""


class TestInputs:
    def find(self, *roots: Any) -> list[str]:
        return list(find_inputs(map(str, roots), lambda _path, _reason: None))

    def test_directories_are_walked_and_lists_are_read(self, tmp_path: Path) -> None:
        (tmp_path / "lake" / "b").mkdir(parents=True)
        for name in ("a.gguf", "b/c.gguf"):
            shutil.copy(LN, tmp_path / "lake" / name)
        listed = tmp_path / "list.txt"
        listed.write_bytes(b"s3://bucket/x\r\n\n# no\n/lake\n\xff.gguf\n")
        found = self.find(tmp_path / "lake", listed, "x.gguf")
        lake = [str(tmp_path / "lake" / name) for name in ("a.gguf", "b/c.gguf")]
        assert found == [*lake, "s3://bucket/x", "/lake", "\udcff.gguf", "x.gguf"]

    def test_what_is_behind_a_url(self, tmp_path: Path) -> None:
        pytest.importorskip("fsspec")
        for name in ("a.gguf", "b.gguf"):
            shutil.copy(LN, tmp_path / name)
        server = RangeServer(tmp_path)
        assert self.find(server.url("")) == [server.url("a.gguf"), server.url("b.gguf")]
        absent = [server.url("absent/"), "nonsense://x/y"]
        assert self.find(*absent) == absent, "a row will say so"
        output = tmp_path / "out.jsonl"
        assert run(server.url(""), *absent, "-o", output, "-j", 1).exit_code == 2
        assert sorted(row.get("label", "no") for row in rows(output)) == ["LayerNorm", "LayerNorm", "no", "no"]

    def test_a_list_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError):
            self.find(tmp_path / "gone.txt")
        result = run(tmp_path / "gone.txt", "-o", tmp_path / "o.csv")
        assert result.exit_code == 2
        assert "gone.txt" in result.stderr

    def test_what_is_passed_over_is_counted_and_listed_on_request(self, tmp_path: Path) -> None:
        lake = tmp_path / "lake"
        lake.mkdir()
        shutil.copy(LN, lake / "a.gguf")
        for name in ("b.gz", "c.zst", "optimizer.pt", "\x1b[31mred.dat"):
            (lake / name).write_bytes(b"x")
        (lake / "cut.gguf").write_bytes(LN.read_bytes()[:1000])
        result = run(lake, "-o", tmp_path / "o.jsonl", "--skipped", tmp_path / "s.jsonl")
        assert result.exit_code == 2
        assert sorted(row.get("label", "failed") for row in rows(tmp_path / "o.jsonl")) == ["LayerNorm", "failed"]
        assert re.search(r"skipped: an archive +2\n", result.stderr)
        assert re.search(r"skipped: state of a training run +1\n", result.stderr)
        listed = {Path(row["path"]).name: row["reason"] for row in rows(tmp_path / "s.jsonl")}
        assert listed.keys() == {"b.gz", "c.zst", "optimizer.pt", "\x1b[31mred.dat"}
        assert "\x1b" not in CliRunner().invoke(cli, [str(lake)]).stderr

    def test_nothing_found_is_no_success(self, tmp_path: Path) -> None:
        (tmp_path / "lake").mkdir()
        assert run(tmp_path / "lake", "-o", tmp_path / "o.csv").exit_code == 2


class TestJournal:
    def failure(self, path: str) -> Failure:
        return Failure.of(path, ValueError("no"))

    def duplicate(self, path: str, of: str) -> Duplicate:
        return Duplicate(path=path, duplicate_of=of, content_id="00")

    def test_one_answer_a_path(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "j", "s")
        record = normsniff.sniff(LN)
        for answer in (record, self.failure("b"), self.failure("b"), self.duplicate("c", "b")):
            journal.add(str(answer.path).encode(), answer)
        assert list(journal.answers()) == [record, self.failure("b"), self.duplicate("c", "b")]
        assert len(journal) == 3
        assert b"b" in journal
        assert b"d" not in journal
        journal.close()

    def test_what_was_met_and_not_answered_is_met_again(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "j", "s")
        a, b, c, d = (Identity(name.encode(), name) for name in "abcd")
        assert [journal.setdefault(content, one) for content, one in ((b"1", a), (b"2", b), (b"1", c))] == [a, b, a]
        journal.add(c.key, self.duplicate("c", "a"))  # of an input that was in flight when the scan was killed
        journal.add(b.key, self.failure("b"))
        journal.close()
        journal = Journal(tmp_path / "j", "s")
        assert [answer.path for answer in journal.answers()] == ["b"]
        assert journal.setdefault(b"1", c) == c
        assert journal.setdefault(b"2", d) == b
        journal.close()

    def test_one_process_at_a_time(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "j", "s")
        with pytest.raises(OutputError, match="another scan"):
            Journal(tmp_path / "j", "s")
        journal.close()

    def test_other_settings_are_refused(self, tmp_path: Path) -> None:
        Journal(tmp_path / "j", "budget 1").close()
        with pytest.raises(OutputError, match=r"budget 1.*budget 2"):
            Journal(tmp_path / "j", "budget 2")

    def test_another_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "j").write_text("not a database, but long enough to be taken for one" * 100)
        with pytest.raises(OutputError, match="journal"):
            Journal(tmp_path / "j", "s")

    def test_it_stays_until_the_output_is_written(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "j", "s")
        journal.add(b"a", self.failure("a"))
        with pytest.raises(OutputError):
            finish(journal, tmp_path / "absent" / "out.jsonl")
        assert finish(journal, tmp_path / "out.jsonl").inputs == 1
        assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


class TestUsage:
    @pytest.mark.parametrize(
        ("args", "says"),
        [
            (["-o", "x.xlsx"], "must end in"),
            (["-o", "x.csv", "--memory", "1MB"], "at least"),
            (["-o", "x.csv", "--timeout", "0"], "timeout"),
            (["-o", "absent/x.csv"], "absent"),
            (["-o", "x.csv", "--engine", "ray"], "a directory named *.parquet"),
            ([], "--output"),
        ],
    )
    def test_errors(self, args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        result = run(LN, *args)
        assert result.exit_code == 2
        assert says in result.stderr
        assert "Traceback" not in result.output
        assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with labels.parquet and labels.csv of some fixtures, one that lies, a copy and a broken file."""
    folder = tmp_path_factory.mktemp("lake")
    models = folder / "models"
    (models / "liar").mkdir(parents=True)
    shutil.copy(FIXTURES / "gpt2-ln" / "model.safetensors", models / "liar")
    (models / "liar" / "config.json").write_text('{"model_type": "llama"}')
    for name in ("gpt2-ln.Q8_0.gguf", "llama-rms.Q8_0.gguf", "mixed.bf16.safetensors"):
        shutil.copy(FIXTURES / name, models)
    shutil.copy(LN, models / "copy.gguf")
    (models / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 40)
    for ending in ("parquet", "csv", "jsonl"):
        assert run(models, "-o", folder / f"labels.{ending}", "-j", 1).exit_code == 2
    return folder


class TestTables:
    @pytest.fixture(autouse=True)
    def _needs(self) -> None:
        pytest.importorskip("pyarrow")

    def test_parquet_and_csv_say_what_the_records_say(self, lake: Path) -> None:
        import pyarrow.parquet as pq

        table = pq.read_table(lake / "labels.parquet").to_pylist()
        records = {row["path"]: row for row in rows(lake / "labels.jsonl")}
        assert len(table) == len(records) == 6
        with (lake / "labels.csv").open(newline="") as file:
            flat = {row["path"]: row for row in csv.DictReader(file)}
        for row in table:
            record = json.loads(row["record"])
            assert record.get("label") == records[row["path"]].get("label") == row["label"]
            assert record.get("d_model") == row["d_model"]
            assert flat[row["path"]].keys() == row.keys() - {"record"}
            assert flat[row["path"]]["status"] == row["status"]
        assert sorted(row["status"] for row in table) == ["answered"] * 4 + ["duplicate", "failed"]
        liar = next(row for row in table if "liar" in row["path"])
        assert (liar["declared"], liar["kernel"], liar["contradictions"] > 0) == ("RMSNorm", "LayerNorm", True)
        assert liar["declared_log_odds"] < 0 < liar["kernel_log_odds"]

    def test_every_column_is_documented(self) -> None:
        for name in Row.__struct_fields__:
            assert f"        {name}: " in (Row.__doc__ or "")

    def test_structure_has_no_log_odds(self) -> None:
        row = row_of(normsniff.sniff(FIXTURES / "mixed.bf16.safetensors"))
        assert (row.status, row.label, row.layout) == ("answered", "mixed", "mixed")
        alone = row_of(normsniff.sniff(LN, evidence=["kernel"]))
        assert (alone.declared, alone.declared_log_odds, alone.layout) == (None, None, None)

    def test_findings_are_counted_and_their_codes_named(self) -> None:
        row = row_of(normsniff.sniff(FIXTURES / "random-ln"))
        assert (row.errors, row.warned, row.notes, row.findings) == (0, 1, 0, "untrained")
        clean = row_of(normsniff.sniff(LN))
        assert (clean.errors, clean.warned, clean.findings) == (0, 0, "")
        assert row_of(normsniff.sniff(LN, check=False)).errors is None

    def test_columns_have_the_types_of_the_row(self) -> None:
        from normsniff.render.parquet import schema

        table = schema()
        assert table.names == list(Row.__struct_fields__)
        for name, kind in (("d_model", "int64"), ("confidence", "double"), ("path", "string"), ("record", "string")):
            assert str(table.field(name).type) == kind

    def test_row_groups(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        from normsniff.render import parquet

        monkeypatch.setattr(parquet, "_GROUP_ROWS", 2)
        with (tmp_path / "x.parquet").open("wb") as file:
            parquet.write_parquet([Failure.of(str(n), ValueError()) for n in range(5)], file)
        assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups == 3

    @pytest.mark.parametrize("number", range(3))
    def test_the_queries_of_the_docs(self, number: int, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        duckdb = pytest.importorskip("duckdb")
        monkeypatch.chdir(lake)
        query = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)[number]
        answer = duckdb.sql(query).fetchall()
        assert answer
        if "declared = 'RMSNorm'" in query:
            assert [Path(row[0]).parent.name for row in answer] == ["liar"]


def test_a_tally_adds_up() -> None:
    one, other = Tally(), Tally()
    record = normsniff.sniff(LN)
    one.add(record)
    other.add(Failure.of("x", SourceError("x", "gone")))
    other.add(Duplicate(path="y", duplicate_of="z", content_id="00"))
    one.merge(other)
    assert one.inputs == 3
    assert (one.labels, one.failures) == ({"LayerNorm": 1}, {"SourceError": 1})
    assert (one.duplicates, one.bytes_read) == (1, record.bytes_read)


def test_equal_counts_are_told_by_name_whatever_came_first() -> None:
    counts = Counter(["b", "a", "c", "c"])
    assert list(ranked(counts).items()) == [("c", 2), ("a", 1), ("b", 1)]
    assert list(ranked(Counter(reversed(list(counts.elements()))))) == ["c", "a", "b"]
