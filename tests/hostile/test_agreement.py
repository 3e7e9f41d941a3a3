"""`normsniff FILE`, `normsniff DIRECTORY` and `normsniff scan` say the same of every file, whole, cut or mutated."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import normsniff
from fuzz.harnesses import HARNESSES, corpus
from normsniff.batch.answers import answers
from normsniff.formats import FORMATS
from normsniff.inputs.walk import survey
from normsniff.record import Answer, Classification, Failure
from tests.helpers.manifest import FIXTURES

SUFFIXES = {suffix for row in FORMATS for suffix in row.suffixes}


def told(answer: Answer) -> object:
    """Return what must be the same: all but the time that it took."""
    assert msgspec.json.decode(msgspec.json.encode(answer), type=type(answer)) == answer
    return msgspec.structs.replace(answer, seconds=0.0) if isinstance(answer, Classification) else answer


def sniffed(path: Path) -> Answer:
    try:
        return normsniff.sniff(path)
    except normsniff.NormsniffError as error:
        return Failure.of(path, error)


def assert_agreement(path: Path) -> None:
    """A file that lies alone in its directory, or the main one of a model."""
    alone = sniffed(path)
    ((_, listed),) = answers([path])
    assert told(alone) == told(listed)
    found = survey_or_none(path.parent)
    if found is None or path not in [one.path for one in found.inputs]:
        assert isinstance(alone, Failure), "what is answered is an input"
        assert path.suffix.lower() not in SUFFIXES, "what is named like a model is an input"
        passed = [] if found is None else [skipped for skipped, _ in found.skipped]
        assert found is None or path in passed, "what is no input is named as passed over"
    else:
        assert len(found.inputs) == 1
        with contextlib.suppress(normsniff.NormsniffError):
            assert told(msgspec.structs.replace(normsniff.sniff(path.parent), path=str(path))) == told(alone)
