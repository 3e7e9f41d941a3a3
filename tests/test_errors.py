from __future__ import annotations

import json
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normsniff.errors import (
    DeviceError,
    FormatError,
    LimitExceeded,
    MissingExtra,
    NormsniffError,
    SourceError,
    WorkerError,
    install_command,
    parsing,
    redact,
)
from normsniff.record import Failure
from tests.helpers.manifest import ROOT

ERRORS = [
    SourceError("a.gguf", "no such file"),
    FormatError("truncated", "a.gguf @ 24", "the header is cut off"),
    LimitExceeded("a.gguf", "tensors", 10, 2_000),
    MissingExtra("onnx", "reading ONNX"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_a_trip_to_another_process(error: NormsniffError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_messages() -> None:
    assert [str(error) for error in ERRORS] == [
        "a.gguf: no such file",
        "a.gguf @ 24: the header is cut off [truncated]",
        "a.gguf: tensors 2,000 is over the limit of 10",
        f"reading ONNX needs an optional dependency: pip install -e '{ROOT}[onnx]'",
    ]


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (SourceError("a", "no such file"), ""),
        (SourceError("a", "no such file", hint="look elsewhere"), "look elsewhere"),
        (FormatError("truncated", "a", "cut off"), "copy or download it again"),
        (FormatError("bad-offset", "a", "beyond the end"), "open an issue"),
        (LimitExceeded("a", "tensors", 1, 2), "normsniff.Limits"),
        (WorkerError("timeout", "not answered"), "--timeout"),
        (WorkerError("memory", "ran out"), "--memory"),
        (DeviceError("no GPU"), "CPU"),
    ],
)
def test_what_helps_is_said_in_the_record_too(error: NormsniffError, hint: str) -> None:
    told = Failure.of("a", error).error.hint
    assert told == error.hint
    assert hint in told
    assert bool(hint) == bool(told)


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'normsniff[remote]'"),
        ("not json", "pip install 'normsniff[remote]'"),
        ('{"url": "file:///my%20code/normsniff", "dir_info": {}}', "pip install '/my code/normsniff[remote]'"),
        (
            '{"url": "https://host/normsniff.git", "vcs_info": {"vcs": "git", "commit_id": "1"}}',
            "pip install 'normsniff[remote] @ git+https://host/normsniff.git'",
        ),
        ('{"url": "https://host/normsniff-1.whl", "archive_info": {}}', "pip install 'normsniff[remote]'"),
    ],
)
def test_an_extra_is_installed_from_where_the_package_came_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, origin: str | None, command: str
) -> None:
    installed = SimpleNamespace(read_text=lambda _: origin)
    monkeypatch.setattr("normsniff.errors.__file__", str(tmp_path / "site-packages" / "normsniff" / "errors.py"))
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: installed)
    assert install_command("remote") == command


def test_names_out_of_files_cannot_drive_a_terminal() -> None:
    error = FormatError("bad", "a @ \x1b[2Jname\n\u202e\udcff", "détail γ")
    assert str(error) == "a @ \\x1b[2Jname\\n\\u202e\\udcff: détail γ [bad]"
    assert str(error).isprintable()
    assert error.where == "a @ \x1b[2Jname\n\u202e\udcff", "the attribute is what the file says"
    str(error).encode()


def recurse() -> None:
    recurse()


def exhaust() -> None:
    raise MemoryError


def raise_system_error() -> None:
    raise SystemError("error return without exception set")


@pytest.mark.parametrize(
    ("trip", "code"),
    [
        (lambda: struct.unpack("<Q", b"1"), "malformed"),
        (lambda: zlib.decompress(b"nonsense"), "malformed"),
        (lambda: json.loads("{"), "malformed"),
        (lambda: dict[str, int]()["key"], "malformed"),
        (lambda: 1 // 0, "malformed"),
        (lambda: b"\xff".decode(), "bad-text"),
        (lambda: "\ud800".encode(), "bad-text"),
        (raise_system_error, "malformed"),
        (recurse, "too-deep"),
        (exhaust, "too-large"),
    ],
)
def test_whatever_a_parser_trips_over_becomes_a_format_error(trip: Callable[[], Any], code: str) -> None:
    with pytest.raises(FormatError) as caught, parsing("a.bin"):
        trip()
    assert caught.value.code == code
    assert caught.value.where == "a.bin"
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_our_own_errors_pass_unchanged(error: NormsniffError) -> None:
    with pytest.raises(type(error)) as caught, parsing("other"):
        raise error
    assert caught.value is error


def test_an_interrupt_is_not_a_malformed_file() -> None:
    with pytest.raises(KeyboardInterrupt), parsing("a"):
        raise KeyboardInterrupt


def test_long_messages_are_cut_to_one_short_line() -> None:
    with pytest.raises(FormatError) as caught, parsing("a"):
        raise ValueError("line\n" * 1000)
    assert "\n" not in caught.value.detail
    assert len(caught.value.detail) < 300


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("https://user:secret@host/a", "https://host/a"),
        ("https://user:p/a?s#s@host/a", "https://host/a"),
        ("http:///user:secret@host/a", "http://host/a"),
        ("https://host:8080/a@main/b", "https://host:8080/a@main/b"),
        ("hf://org/model@main/a", "hf://org/model@main/a"),
        ("https://host/a?sig=x'SECRET&v=2", "https://host/a?sig=…&v=…"),
        ("https://host/a;jsessionid=SECRET/b", "https://host/a;jsessionid=…/b"),
        ("https://host/a#access_token=SECRET", "https://host/a#…"),
        ("https://host/a?SECRET", "https://host/a?…"),
        (
            "see 'https://host/a?k=SECRET', then <https://u:SECRET@b/c>.",
            "see 'https://host/a?k=…', then <https://b/c>.",
        ),
        ("s3://bucket/key: no such file", "s3://bucket/key: no such file"),
        ("http:/user:secret@host/a?k=SECRET: no such file", "http:/host/a?k=…: no such file"),  # as `Path` spells it
        ("C:/Users/a#b/c?d=1", "C:/Users/a#b/c?d=1"),
        ("a.tar:/b?c=1", "a.tar:/b?c=…"),
        (":/a?b=1 x:/y?z=1 http://h?k=S", ":/a?b=1 x:/y?z=1 http://h?k=…"),
        ("://", "://"),
    ],
)
def test_credentials_are_taken_out_of_urls(given: str, told: str) -> None:
    assert redact(given) == told


@given(st.text(alphabet="ab:/@?#;=&'\" ", max_size=60))
def test_no_text_is_too_odd_for_it(text: str) -> None:
    assert redact(text) is not None
    assert redact(f"https://u:SECRET@host/?k=SECRET {text}").count("SECRET") == 0


def test_a_message_is_made_in_time_and_is_short() -> None:
    """A million characters with the marks of URLs; a pattern took the square of that."""
    for text in (
        "a" * 1_000_000 + "://",
        "a://" * 250_000,
        ":" * 1_000_000,
        "://@" * 250_000,
        ":/" * 200_000,
        "ab:/" * 100_000,
    ):
        assert len(str(NormsniffError(text))) <= 4_100
        redact(text)
