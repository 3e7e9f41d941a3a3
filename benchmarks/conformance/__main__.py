"""Table how often the label is right, by format and evidence, and list every wrong case.

    python -m benchmarks.conformance [GGUF_TABLE TRANSFORMERS_TABLE] [--real] [--undetermined] [--hide SHARE --seed N]
    python -m benchmarks.conformance --part zoo --part onnx --part keras

Without the two reference tables (JSON files), it checks the facts that normsniff ships against its own answers.
`--hide` removes a random share of the rows about model types from normsniff's tables first, and judges only
those: how well do the rules do on what no row covers? The parts ``forms`` and ``suite`` need no more than `onnx`;
``onnx`` and ``keras`` make files of networks whose norms are known, with the tools of the group ``conformance``. Exit
status 1 if any answer is wrong.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from normsniff.families import tables as family_tables

from . import made, shipped, tables, zoo
from .cases import Case
from .report import Answer, answer, listed, markdown, table


def hide(share: float, seed: int) -> set[str]:
    """Remove a random share of the model types from the tables of this process; return their names."""
    rows = family_tables.data().transformers
    hidden = set(random.Random(seed).sample(sorted(rows), round(share * len(rows))))
    for name in hidden:
        del rows[name]
    return hidden


def main() -> int:
    """Run all cases; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", type=Path, help="gguf_arch_norms.json and transformers_norms.json")
    parser.add_argument("--undetermined", action="store_true", help="list the undetermined cases, too")
    parser.add_argument("--hide", type=float, default=0.0, help="share of the model types to judge without their rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="add the headers of models that transformers builds (slow)")
    parser.add_argument("--only", help="judge this architecture, model type or network only")
    parser.add_argument("--markdown", action="store_true", help="tables as in docs/conformance.md")
    parser.add_argument("--part", action="append", choices=("headers", "zoo", *made.PARTS), help="default: all of them")
    arguments = parser.parse_args()
    parts = arguments.part or (["headers"] if arguments.hide else ["headers", "zoo", *made.PARTS])
    answers = _headers(arguments) if "headers" in parts else []
    if "zoo" in parts:
        answers += zoo.answers(arguments.only)
    for part in made.PARTS:
        if part in parts:
            answers += made.answers(part, arguments.only)
    wrong = listed(answers)
    print(markdown(answers) if arguments.markdown else table(answers))
    print(f"\nwrong:\n{wrong}" if wrong else "\nnothing wrong")
    if arguments.undetermined:
        print(f"\nundetermined:\n{listed(answers, 'undetermined')}")
    return 1 if wrong else 0


def _headers(arguments: argparse.Namespace) -> list[Answer]:
    """Answer for the headers of known architectures."""
    cases: Iterable[Case]
    if arguments.tables:
        gguf, models = (json.loads(path.read_text(encoding="utf-8")) for path in arguments.tables)
        cases = itertools.chain(tables.gguf(gguf), tables.projectors(gguf), tables.transformers(models))
        if arguments.only:
            models["models"] = {name: row for name, row in models["models"].items() if name == arguments.only}
        if arguments.real:
            from . import real

            cases = itertools.chain(cases, real.headers(tables.transformers(models)))
    else:
        cases = shipped.cases()
    if arguments.hide:
        hidden = hide(arguments.hide, arguments.seed)
        cases = _only(cases, hidden)
    if arguments.only:
        cases = _only(cases, {arguments.only})
    return [one for case in cases for one in answer(case)]


def _only(cases: Iterable[Case], names: set[str]) -> Iterator[Case]:
    return (case for case in cases if case.name in names)


if __name__ == "__main__":
    sys.exit(main())
