"""``python -m fuzz.guided FORMAT [--minutes 10]``: the mutations of a format, led by what they reach in normsniff.

atheris (the dependency group ``fuzz``) notes which branches an execution takes, and how often; a model that takes one
which none has taken before is mutated further, so that what needs several rare changes together is found as well. An
execution costs three times as much as with ``python -m fuzz``. It ends at the first finding, which is written to
``--keep`` and can be given again in place of the format; exit code 77 (libFuzzer's) if there was one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NoReturn

import atheris
import msgspec

with atheris.instrument_imports(include=["normsniff"]):
    from .trial import Trial

from .harnesses import HARNESSES, LARGEST, changed_once, corpus

_SECONDS = 20
"""Wall time after which libFuzzer calls an execution a hang."""

_KEPT = 2 * LARGEST
"""Bytes of a case: two changed files."""


class Case(msgspec.Struct, array_like=True):
    """What libFuzzer keeps as bytes: a model of the corpus, and what takes the place of files in it."""

    format: str
    number: int
    changed: dict[str, bytes]


class FoundError(Exception):
    """What a trial found wrong."""


def _case(data: bytes) -> Case | None:
    """Return a case; none of the empty bytes that libFuzzer begins with."""
    try:
        return msgspec.msgpack.decode(data, type=Case)
    except msgspec.DecodeError:
        return None


def _mutate(data: bytes, most: int, seed: int) -> bytes:
    case = _case(data)
    if case is None:
        return data
    changed = dict(case.changed)
    changed_once(case.format, corpus(case.format)[case.number], changed, random.Random(seed))  # noqa: S311 - no secret
    found = msgspec.msgpack.encode(Case(case.format, case.number, changed))
    return found if len(found) <= most else data


def main() -> None:
    """Fuzz a format."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.guided", description=__doc__)
    parser.add_argument("format", help=f"one of {', '.join(HARNESSES)}, or a file of a finding")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--most", type=int, default=-1, help="executions, if they are done before")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    arguments = parser.parse_args()
    again = Path(arguments.format).is_file()
    if not again and not corpus(arguments.format):
        parser.error(f"{arguments.format}: what writes its files is not installed")
    warnings.simplefilter("error")
    arguments.keep.mkdir(parents=True, exist_ok=True)
    options = [f"-seed={arguments.seed}", f"-max_len={_KEPT}", f"-timeout={_SECONDS}", "-rss_limit_mb=0"]
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Trial()) as trial:
        if again:
            options.append(arguments.format)
        else:
            for number in range(len(corpus(arguments.format))):
                seed = msgspec.msgpack.encode(Case(arguments.format, number, {}))
                (Path(folder) / str(number)).write_bytes(seed)
            options += [folder, f"-max_total_time={60 * arguments.minutes:.0f}", f"-runs={arguments.most}"]
        child = os.fork()  # libFuzzer ends its process without any of what is left to do
        if not child:
            _run(trial, [*options, f"-artifact_prefix={arguments.keep}/"])
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(ended)


def _run(trial: Trial, options: list[str]) -> NoReturn:
    def answer(data: bytes) -> None:
        case = _case(data)
        said = case and trial(corpus(case.format)[case.number], case.changed, whole=False)
        if said:
            raise FoundError(said)

    atheris.Setup([sys.argv[0], *options], answer, custom_mutator=_mutate)
    atheris.Fuzz()
    os._exit(0)


if __name__ == "__main__":
    main()
