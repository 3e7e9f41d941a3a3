"""The same models under other spellings of their names: no renaming may turn a right label into a wrong one.

    python -m benchmarks.conformance.renaming TRANSFORMERS_TABLE [--headers CACHE] [--share 0.2] [--list]

Every model type that transformers builds is labelled from names,
shapes and the values of its vectors, without a configuration, once for every spelling. Matrices are never read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import normsniff
from normsniff import Classification

from . import real, tables
from .cases import Shapes

Rename = Callable[[str], str]

_SCALES = {"weight", "gamma", "scale", "g"}


def _joined(separator: str) -> Rename:
    return lambda name: name.replace(".", separator)


def _keystr(name: str) -> str:
    """What `jax.tree_util.keystr` writes."""
    return "".join(f"[{part}]" if part.isdecimal() else f"['{part}']" for part in name.split("."))


def _camel(segment: str) -> str:
    head, *rest = segment.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _pascal(segment: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in segment.split("_"))


def _segments(change: Rename, *, parameter: bool = False) -> Rename:
    """Change every module's word, and the parameter's if asked."""

    def rename(name: str) -> str:
        *module, last = name.split(".")
        return ".".join([*map(change, module), change(last) if parameter else last])

    return rename


def _last(separator: str) -> Rename:
    def rename(name: str) -> str:
        module, _, last = name.rpartition(".")
        return f"{module}{separator}{last}" if module else last

    return rename


def _words(scale: str, shift: str) -> Rename:
    """Other words for the two parameters of a module, wherever they stand."""
    return lambda name: re.sub(r"\.weight$", f".{scale}", re.sub(r"\.bias$", f".{shift}", name))


def _norm_words(scale: str, shift: str) -> Rename:
    """Other words for the two parameters of what is called a norm."""
    change = _words(scale, shift)
    return lambda name: change(name) if re.search(r"(norm|ln)[\w.]*\.(weight|bias)$", name, re.IGNORECASE) else name


def _mixed(name: str) -> str:
    """A different separator at every level."""
    first, *rest = name.split(".")
    return first + "".join(map("".join, zip(itertools.cycle(("/", "__", ".", "|", "::")), rest, strict=False)))


def _scrambled(name: str) -> str:
    """Words that mean nothing, each always the same; numbers stay."""

    def word(match: re.Match[str]) -> str:
        shuffle = random.Random(zlib.crc32(match[0].encode()))
        return "".join(shuffle.choice("bcdfghjklmnpqrstvwxyz") for _ in range(5))

    return re.sub(r"[A-Za-z]+", word, name)


PLAIN = "as they are"
SPELLINGS: Mapping[str, Rename] = {
    PLAIN: lambda name: name,
    "a/b/c": _joined("/"),
    "a__b__c": _joined("__"),
    "a|b|c": _joined("|"),
    "a::b::c": _joined("::"),
    "a->b->c": _joined("->"),
    "a-b-c": _joined("-"),
    "a b c": _joined(" "),
    "a_b_c": _joined("_"),
    "['a']['b']['c']": _keystr,
    "('a', 'b', 'c')": lambda name: str(tuple(name.split("."))),
    "separators mixed": _mixed,
    "camelCase modules": _segments(_camel),
    "PascalCase modules": _segments(_pascal),
    "camelCase throughout": lambda name: _camel(re.sub(r"\.", "_", name)),
    "kebab-case modules": _segments(lambda segment: segment.replace("_", "-")),
    "UPPER CASE": str.upper,
    "..._weight, ..._bias": _last("_"),
    ".../weight, .../bias": _last("/"),
    "gamma, beta in norms": _norm_words("gamma", "beta"),
    "scale, bias in norms": _norm_words("scale", "bias"),
    "g, b in norms": _norm_words("g", "b"),
    "a_2, b_2 in norms": _norm_words("a_2", "b_2"),
    "alpha, bias in norms": _norm_words("alpha", "bias"),
    "unknown words in norms": _norm_words("foo", "bar"),
    "kernel, w, b": _words("w", "b"),
    "...value": lambda name: name + ".value",
    "params...": lambda name: "params." + name,
    "_orig_mod...": lambda name: "_orig_mod." + name,
    "_fsdp_wrapped_module in every block": lambda name: re.sub(r"(\.\d+\.)", r"\1_fsdp_wrapped_module.", name),
    "words scrambled": _scrambled,
    "modules scrambled": lambda name: _scrambled(name.rpartition(".")[0]) + "." + name.rpartition(".")[2],
}


def trained(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A tensor as training leaves it: vectors with values, matrices (which nobody reads) of zeros."""
    if len(shape) != 1 or shape[0] > 1 << 20:
        return np.broadcast_to(np.float32(0), shape)
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    values = draw.normal(0, 0.05, shape).astype(np.float32)
    return values + 1 if name.rpartition(".")[2] in _SCALES else values


def answers(shapes: Shapes, spellings: Collection[str]) -> Iterator[tuple[str, Classification]]:
    """Yield (spelling, record) of one model for every spelling that keeps its names apart."""
    arrays = {name: trained(name, tuple(shape)) for name, shape in shapes.items()}
    for spelling in spellings:
        renamed = {SPELLINGS[spelling](name): value for name, value in arrays.items()}
        if len(renamed) == len(arrays):
            yield spelling, normsniff.sniff(renamed, evidence=("declared", "layout"))


def headers(table: Path, cache: Path | None) -> dict[str, tuple[str, Shapes]]:
    """Return truth and shapes of every model type that can be built, by name; those in the cache if that is there."""
    if cache is not None and cache.exists():
        return dict(json.loads(cache.read_text("utf-8")))
    cases = real.headers(tables.transformers(json.loads(table.read_text("utf-8"))))
    found = {case.name: (case.label, case.tensors) for case in cases if case.config is not None}
    if cache is not None:
        cache.write_text(json.dumps(found), encoding="utf-8")
    return found


def outcome(truth: str, record: Classification) -> str:
    """Right, abstained, wrong, or confidently wrong."""
    if record.label == truth:
        return "right"
    if record.label == "undetermined":
        return "abstained"
    return "wrong at 0.9" if (record.confidence or 0) >= 0.9 else "wrong"


def main() -> int:
    """Print the table; exit status 1 if a spelling made a right answer wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--headers", type=Path, help="keep the built headers in this file")
    parser.add_argument("--only")
    parser.add_argument("--spelling", choices=SPELLINGS)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--abstained", action="store_true")
    arguments = parser.parse_args()
    spellings = (PLAIN, arguments.spelling) if arguments.spelling else tuple(SPELLINGS)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    worse = 0
    for name, (truth, shapes) in headers(arguments.table, arguments.headers).items():
        drawn = zlib.crc32(name.encode()) % 1000 < 1000 * arguments.share
        if not drawn or arguments.only not in (None, name):
            continue
        plain = ""
        for spelling, record in answers(shapes, spellings):
            said = outcome(truth, record)
            counts[spelling][said] += 1
            plain = said if spelling == PLAIN else plain
            worse += said.startswith("wrong") and plain == "right"
            if arguments.list and (said.startswith("wrong") or (arguments.abstained and said == "abstained")):
                reasons = "; ".join(f"{e.kind}: {e.reason}" for e in record.evidence)
                print(f"{spelling} | {name}: {truth}, said {record.label} {record.confidence}: {reasons}"[:300])
    print("| spelling | right | abstained | wrong | wrong at 0.9 and more |\n|---|---|---|---|---|")
    for spelling, row in counts.items():
        shown = spelling.replace("|", "\\|")  # not a column of its own
        print(f"| `{shown}` | {row['right']} | {row['abstained']} | {row['wrong']} | {row['wrong at 0.9']} |")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
