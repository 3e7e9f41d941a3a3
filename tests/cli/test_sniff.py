"""The command line as a user meets it: a real process for the contract, click's runner for the rest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner, Result

import normsniff
from normsniff.cli import cli
from tests.helpers.faults import CONFIG, llama, save
from tests.helpers.manifest import FIXTURES
from tools import schema

LN = str(FIXTURES / "gpt2-ln.Q8_0.gguf")
RMS = str(FIXTURES / "llama-rms.Q8_0.gguf")
RANDOM = str(FIXTURES / "random-rms" / "model.safetensors")
README = (FIXTURES.parent / "README.md").read_text()


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="normsniff")


@pytest.fixture
def broken(tmp_path: Path) -> str:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 40)
    return str(path)


def test_a_process_prints_plain_text_into_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-m", "normsniff", LN], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("LayerNorm")
    assert "\x1b" not in done.stdout
    for word in ("file", "declared", "layout", "kernel", "read", "GGUF v3", "gpt2", "d_model 64", "writers ρ"):
        assert word in done.stdout


def on_a_terminal(*args: str, width: int = 80) -> str:
    import fcntl
    import pty
    import struct
    import termios

    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen([sys.executable, "-m", "normsniff", *args], stdout=child, env=environment)
    os.close(child)
    output = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # Linux reports the closed end of a terminal so
            break
        if not piece:
            break
        output += piece
    os.close(parent)
    assert process.wait() == 0
    return output.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colour() -> None:
    output = on_a_terminal(LN)
    assert "\x1b[" in output
    assert "LayerNorm" in output


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("args", [[LN, "--norms"], ["norms", LN], ["direction", LN], ["plan", LN], [LN] * 6])
def test_no_line_is_wider_than_the_terminal(args: list[str], width: int) -> None:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(*args, width=width)).splitlines()
    assert [line for line in lines if len(line) > width and "/" not in line] == []  # a path stays whole
    assert len(lines) == (6 if args == [LN] * 6 else len(lines)), "brief, where there are many"


@pytest.mark.parametrize("command", ["norms", "direction", "plan"])
def test_a_table_fits_half_a_terminal(command: str) -> None:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(command, LN, width=40)).splitlines()
    assert [line for line in lines if len(line) > 40] == []
    assert len(lines) > 3
    assert not any(re.fullmatch(r"  [0-9.]+ K?B", line) for line in lines), "no cell stands in a line of its own"


class TestExitCodes:
    @pytest.mark.parametrize(
        ("args", "code"),
        [
            ([LN], 0),
            ([LN, RMS], 0),
            ([RANDOM, "--evidence", "kernel"], 0),
            ([RANDOM, "--evidence", "kernel", "--strict"], 3),
            ([RANDOM, LN, "--evidence", "kernel", "--strict"], 0),
            ([LN, "--expect", "LayerNorm"], 0),
            ([LN, RMS, "--expect", "LayerNorm"], 1),
            ([RANDOM, "--evidence", "kernel", "--expect", "RMSNorm"], 1),
            ([], 2),
            (["no-such-file.gguf"], 2),
            ([LN, "no-such-file.gguf", "--expect", "RMSNorm"], 2),
            (["--evidence", "taste", LN], 2),
            (["--budget", "lots", LN], 2),
        ],
    )
    def test_table(self, args: list[str], code: int) -> None:
        assert run(*args).exit_code == code

    def test_a_contradiction_counts_only_under_strict(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes((FIXTURES / "gpt2-ln" / "model.safetensors").read_bytes())
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        assert run(str(tmp_path)).exit_code == 0
        assert "conflict" in run(str(tmp_path)).output
        assert run(str(tmp_path), "--strict").exit_code == 1

    def test_an_error_of_the_norms_is_told_and_counts_under_strict(self, tmp_path: Path) -> None:
        state = llama()
        state["model.norm.weight"][3] = float("nan")
        path = str(save(state, CONFIG, tmp_path / "broken"))
        assert "error      not-finite: " in run(path).output
        assert (run(path).exit_code, run(path, "--strict").exit_code) == (0, 1)
        assert run(path, "--strict", "--no-check").exit_code == 0
        assert "not-finite" not in run(path, "--no-check").output
        cheap = [path, "--evidence", "declared", "--strict"]
        assert (run(*cheap).exit_code, run(*cheap, "--check").exit_code) == (0, 1)

    def test_one_bad_input_does_not_stop_the_others(self, broken: str) -> None:
        result = run(broken, LN)
        assert result.exit_code == 2
        assert "error:" in result.stderr
        assert "Traceback" not in result.output
        assert "LayerNorm" in result.stdout

    def test_documented_in_help_and_readme(self) -> None:
        text = run("--help").output
        for code in "0123":
            assert re.search(rf"^\s+{code}  \w", text, re.MULTILINE)
            assert f"**{code}**" in README


class TestComplaints:
    """Under --expect and --strict, a line on stderr for each input that is at fault."""

    @pytest.mark.parametrize("quiet", [[], ["--quiet"]])
    @pytest.mark.parametrize("spelling", ["layernorm", "LAYERNORM", "LayerNorm"])
    def test_who_is_not_as_expected(self, spelling: str, quiet: list[str]) -> None:
        result = run(LN, RMS, RANDOM, "--evidence", "kernel", "--expect", spelling, *quiet)
        said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert result.exit_code == 1
        assert len(said) == 2
        assert re.fullmatch(rf"error: {re.escape(RMS)}: RMSNorm \([\d.]+%\), not LayerNorm as expected", said[0])
        assert f"{RANDOM}: undetermined, not LayerNorm as expected: looked for" in said[1]
        assert bool(result.stdout) != bool(quiet)

    def test_who_contradicts_itself(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes((FIXTURES / "gpt2-ln" / "model.safetensors").read_bytes())
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        result = run(LN, str(tmp_path), "--strict", "--quiet")
        assert result.exit_code == 1
        assert {line.partition(": ")[2].partition(": ")[0] for line in result.stderr.splitlines()} == {
            str(tmp_path / "model.safetensors")
        }
        assert "declared evidence says RMSNorm" in result.stderr

    def test_who_abstains_where_all_do(self) -> None:
        result = run(RANDOM, RANDOM, "--evidence", "kernel", "--strict", "--quiet")
        assert result.exit_code == 3
        assert result.stderr.count(f"error: {RANDOM}: undetermined: looked for") == 2

    def test_why_it_abstains_comes_before_what_it_looked_for(self, tmp_path: Path) -> None:
        plain = {f"encoder.{name.removeprefix('model.')}": one for name, one in llama().items()}
        shifts = {name.replace(".weight", ".bias"): one - 0.5 for name, one in plain.items() if "norm" in name}
        other = {f"decoder.{name.removeprefix('model.')}": one for name, one in llama().items()}
        folder = save(plain | shifts | other, {}, tmp_path / "model")
        result = run(str(folder), "--evidence", "layout", "--strict", "--quiet")
        assert result.exit_code == 3
        assert "have different norms, and nothing says which the file is about" in result.stderr
        assert "looked for" not in result.stderr

    def test_nothing_is_said_of_those_that_are_right(self) -> None:
        assert run(LN, "--expect", "layernorm", "--strict", "--quiet").output == ""

    def test_every_label_may_be_expected(self) -> None:
        from normsniff.record import Label

        assert {*get_args(Label)} == {"LayerNorm", "RMSNorm", "mixed", "none", "undetermined"}
        for label in ("mixed", "none"):
            assert run(LN, "--expect", label, "--quiet").exit_code == 1


class TestWords:
    """What somebody types who does not know the commands by heart."""

    @pytest.mark.parametrize(
        ("word", "command"),
        [
            ("scna", "scan"),
            ("repot", "report"),
            ("chekc", "check"),
            ("norm", "norms"),
            ("Scan", "scan"),
            ("hlep", "help"),
        ],
    )
    def test_a_command_that_is_nearly_right_is_suggested(self, word: str, command: str) -> None:
        result = run(word, "x")
        assert result.exit_code == 2
        assert result.stderr.endswith(f"no command is called {word!r}; did you mean `normsniff {command}`?\n")

    def test_a_file_of_that_name_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("scna", "help"):
            Path(name).write_bytes(Path(LN).read_bytes())
            assert run(name).stdout.startswith("LayerNorm")

    def test_another_word_is_a_file_that_is_not_there(self) -> None:
        assert run("llama").stderr == "error: llama: No such file or directory\n"

    def test_help_is_a_command_too(self) -> None:
        assert run("help").output == run("--help").output
        assert run("help", "scan").output == run("scan", "--help").output

    @pytest.mark.parametrize(
        "args",
        [
            ["", LN], [LN, ""], ["sniff", ""], ["check", ""], ["scan", "", "-o", "x.csv"], ["track", ""], ["plan", ""],
            ["norms", ""], ["direction", ""], ["report", "", "-o", "x.html"], ["prune", "", "-o", "x"],
            ["readout", "", LN], ["readout", LN, ""],
        ],
    )  # fmt: skip
    def test_an_unset_variable_is_not_the_working_directory(
        self, args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = run(*args)
        assert result.exit_code == 2
        assert "an empty path; is a variable of the shell not set?" in result.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "1e300", "soon", ""])
    @pytest.mark.parametrize("command", [[LN], ["check", LN], ["scan", LN, "-o", "x.csv"], ["plan", LN]])
    def test_a_time_that_is_none_is_a_usage_error(
        self, command: list[str], value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = run(*command, "--timeout", value)
        assert result.exit_code == 2
        assert "Invalid value for '--timeout': timeout must be a" in result.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_repository_of_the_hub_is_hinted_at(self) -> None:
        assert "hf://org/model-7b.v1" in run("org/model-7b.v1").stderr
        assert "hf://" not in run("models/a.gguf").stderr
        assert "hf://" not in run("a/b/c").stderr

    def test_help_names_every_format(self) -> None:
        from normsniff.formats import FORMATS

        text = " ".join(run("--help").output.split())
        said = re.search(r"Reads (.*) files, single", text)
        assert said is not None
        assert set(re.split(r", | and ", said[1])) == {row.name for row in FORMATS}


class TestStandardInput:
    @pytest.mark.parametrize(
        "name",
        ["gpt2-ln.Q8_0.gguf", "gpt2-ln.bf16.safetensors", "gpt2-ln.int8.onnx", "gpt2-ln.f16.keras", "gpt2-ln.f16.h5"],
    )
    @pytest.mark.parametrize("options", [[], ["--timeout", "60"]], ids=["here", "in a process"])
    def test_a_model_comes_through_a_pipe(self, name: str, options: list[str], tmp_path: Path) -> None:
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        command = [sys.executable, "-m", "normsniff", "-", "--json", *options]
        data = (FIXTURES / name).read_bytes()
        done = subprocess.run(command, input=data, capture_output=True, env=environment, check=True)
        record = json.loads(done.stdout)
        assert (record["path"], record["label"], record["file_size"]) == ("<stdin>", "LayerNorm", len(data))
        assert list(tmp_path.iterdir()) == [], "the copy is deleted"

    @pytest.mark.parametrize("command", ["sniff", "check", "norms", "plan", "direction"])
    def test_every_command_that_reads_one_model_takes_it(self, command: str) -> None:
        result = CliRunner().invoke(cli, [command, "-"], input=Path(LN).read_bytes(), prog_name="normsniff")
        assert result.exit_code == 0
        assert result.output

    @pytest.mark.parametrize(("data", "words"), [(b"", "the file is empty"), (b"GGUF\3\0", "<stdin>")])
    def test_what_is_no_model_is_said_to_be_none(self, data: bytes, words: str) -> None:
        result = CliRunner().invoke(cli, ["-", "--json"], input=data, prog_name="normsniff")
        assert result.exit_code == 2
        assert words in result.stderr
        assert json.loads(result.stdout)["path"] == "<stdin>"


class TestTriage:
    """A folder at a glance."""

    @pytest.fixture
    def lake(self, tmp_path: Path) -> Path:
        place = tmp_path / "lake"
        (place / "old").mkdir(parents=True)
        for name in ("a.gguf", "mmproj.gguf", "old/b.gguf"):
            (place / name).write_bytes(Path(LN).read_bytes())
        (place / "c.gguf").write_bytes(Path(RMS).read_bytes())
        (place / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 40)
        for name in ("noise1", "noise2", "noise3", "noise4"):
            (place / name).write_bytes(b"noise")
        (place / "half.zip").write_bytes(b"\x1f\x8bzzz")
        return place

    def test_one_aligned_line_an_input(self, lake: Path) -> None:
        lines = run("--brief", str(lake)).stdout.splitlines()
        assert len(lines) == 5
        assert {line[: line.index(str(lake))].rstrip() for line in lines} == {
            "LayerNorm      99.8%  GGUF", "RMSNorm        99.8%  GGUF", "not answered       –"
        }  # fmt: skip
        assert len({line.index(str(lake)) for line in lines}) == 1
        assert any(line.endswith("broken.gguf  (malformed)") or "broken.gguf  (" in line for line in lines)

    def test_what_needs_a_look_is_marked(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes((FIXTURES / "gpt2-ln" / "model.safetensors").read_bytes())
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        (line,) = run("--brief", str(tmp_path)).stdout.splitlines()
        assert line.endswith("(2 conflicts, 1 error)")

    def test_the_end_sums_up_and_groups_what_was_skipped(self, lake: Path) -> None:
        result = run(str(lake))
        assert result.exit_code == 2
        *_, reasons, archive, sentence = result.stderr.splitlines()
        assert reasons == "skipped 4 files: not a format that normsniff reads (noise1, noise2, noise3 ...)"
        assert archive.startswith(f"skipped {lake / 'half.zip'}: ")
        assert sentence.startswith("5 models: 3 LayerNorm, 1 RMSNorm, 1 not answered (1 ")

    def test_quiet_says_nothing_of_it(self, lake: Path) -> None:
        said = run("--quiet", str(lake)).stderr.splitlines()
        assert [line[:7] for line in said] == ["error: "]

    def test_one_input_needs_no_summary(self) -> None:
        assert run(LN).stderr == ""

    @pytest.mark.parametrize(
        ("patterns", "left"),
        [
            (["*mmproj*"], {"a.gguf", "b.gguf", "c.gguf", "broken.gguf"}),
            (["old"], {"a.gguf", "c.gguf", "mmproj.gguf", "broken.gguf"}),
            (["old/*", "broken*", "c.*"], {"a.gguf", "mmproj.gguf"}),
        ],
    )
    def test_what_is_excluded_is_left_out_and_counted(self, lake: Path, patterns: list[str], left: set[str]) -> None:
        options = [word for pattern in patterns for word in ("--exclude", pattern)]
        result = run("--json", str(lake), *options)
        assert {Path(json.loads(line)["path"]).name for line in result.stdout.splitlines()} == left
        assert "excluded, as was asked for" in result.stderr
        output = lake.parent / "o.jsonl"
        run("scan", str(lake), "-o", str(output), "--no-dedupe", *options)
        assert {Path(json.loads(line)["path"]).name for line in output.read_text().splitlines()} == left
        checked = run("check", "--json", str(lake), *options).stdout.splitlines()
        assert {Path(json.loads(line)["path"]).name for line in checked} == left

    def test_what_is_named_can_be_excluded_too(self) -> None:
        result = run(LN, RMS, "--exclude", "*llama*", "--brief")
        assert result.stdout.count("\n") == 1
        assert result.stderr == f"skipped {RMS}: excluded, as was asked for\n"


class TestJson:
    def test_one_line_an_input(self, broken: str) -> None:
        result = run("--json", LN, broken, RMS)
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        assert [row.get("label") for row in rows] == ["LayerNorm", None, "RMSNorm"]
        assert rows[1]["error"]["type"] == "FormatError"
        assert rows[1]["path"] == broken

    def test_every_line_fits_the_printed_schema(self, broken: str) -> None:
        import jsonschema

        validator = jsonschema.Draft202012Validator(json.loads(run("schema").output))
        for line in run("--json", LN, broken, RANDOM).stdout.splitlines():
            validator.validate(json.loads(line))
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({"path": "x"})

    def test_the_shipped_schema_is_that_of_the_record(self) -> None:
        """After a change of record.py: python -m tools.schema."""
        assert run("schema").output == schema.text() == schema.SCHEMA.read_text(encoding="utf-8")


class TestOutput:
    def test_norms_table(self) -> None:
        lines = run("--norms", LN).output.splitlines()
        table = [line for line in lines if line.startswith("  blk.")]
        assert len(table) == 4
        assert all("stream" in line for line in table)

    def test_quiet_prints_nothing(self) -> None:
        assert run("--quiet", LN).output == ""

    def test_only_the_named_kinds_are_shown(self) -> None:
        output = run("--evidence", "layout", LN).output
        assert "layout" in output
        assert "kernel" not in output
        assert "declared" not in output

    def test_full_reads_more_than_a_budget(self) -> None:
        def read(*args: str) -> int:
            return int(json.loads(run("--json", LN, *args).stdout)["bytes_read"])

        assert read("--budget", "30kB") < read("--full")

    def test_version_and_help(self) -> None:
        assert run("--version").output == f"normsniff {normsniff.__version__}\n"
        for text in (run("--help").output, run("-h").output):
            assert "Examples:" in text
            assert "schema" in text
            assert "completion" in text

    def test_every_option_has_help(self) -> None:
        context = click.Context(cli)
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            assert command is not None
            assert command.help
            for parameter in command.params:
                if parameter.param_type_name == "option":
                    assert parameter.help, parameter.name

    def test_names_from_a_file_cannot_command_the_terminal(self, tmp_path: Path) -> None:
        import numpy as np
        from safetensors.numpy import save_file

        evil = "layer\x1b[31m.norm.weight"
        save_file({evil: np.ones(32, np.float32), "a": np.ones((32, 64), np.float32)}, tmp_path / "m.safetensors")
        assert "\x1b" not in run("--norms", str(tmp_path / "m.safetensors")).output

    def test_completion_of_the_default_command(self) -> None:
        env = {**os.environ, "_NORMSNIFF_COMPLETE": "bash_complete", "COMP_WORDS": "normsniff --exp", "COMP_CWORD": "1"}
        done = subprocess.run(
            [sys.executable, "-c", "from normsniff.cli import main; main()"],
            capture_output=True,
            text=True,
            env=env,
            check=False,
        )
        assert "--expect" in done.stdout


class TestDirectories:
    def test_many_models_in_a_stable_order(self, tmp_path: Path) -> None:
        for name in ("b.gguf", "a.gguf"):
            (tmp_path / name).write_bytes(Path(LN).read_bytes())
        (tmp_path / "notes.txt").write_text("no model")
        rows = [json.loads(line) for line in run("--json", str(tmp_path)).stdout.splitlines()]
        assert [Path(row["path"]).name for row in rows] == ["a.gguf", "b.gguf"]

    def test_nothing_found_is_an_error(self, tmp_path: Path) -> None:
        result = run(str(tmp_path))
        assert result.exit_code == 2
        assert "no model" in result.stderr


class TestImports:
    """Speed is a feature: what must not be imported."""

    def modules(self, code: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
        )
        return set(done.stdout.split())

    def test_importing_the_package_is_light(self) -> None:
        heavy = {"numpy", "h5py", "onnx", "gguf", "click", "rich", "msgspec", "ml_dtypes"}
        assert not heavy & self.modules("import normsniff")

    def test_help_needs_no_numpy(self) -> None:
        code = "from click.testing import CliRunner\nfrom normsniff.cli import cli\nCliRunner().invoke(cli, ['--help'])"
        assert not {"numpy", "h5py", "onnx", "gguf", "rich", "msgspec"} & self.modules(code)

    def test_a_safetensors_file_needs_no_other_format_library(self) -> None:
        path = FIXTURES / "gpt2-ln" / "model.safetensors"
        code = f"import normsniff; normsniff.sniff({str(path)!r})"
        forbidden = {
            "numpy.f2py",
            "numpy.ma",
            "numpy.random",
            "numpy.testing",
            "h5py",
            "onnx",
            "gguf",
            "rich",
            "torch",
            "sklearn",
            "safetensors",
            "click",
        }
        assert not forbidden & self.modules(code)

    def test_public_names_exist(self) -> None:
        for name in normsniff.__all__:
            assert getattr(normsniff, name) is not None
        with pytest.raises(AttributeError):
            normsniff.no_such_name  # noqa: B018 - the access is the test
