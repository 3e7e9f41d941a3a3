"""When reading stops because there is nothing to find: the rule of `is_quiet`, replayed on the corpus.

    python -m calibration.stopping [--held]

What a plan reads first of every snapshot (a glance at a large model, a first batch) is put before the rule, and where
the rule would stop, the kernel evidence from all matrices says what would have been lost. The rule was chosen on the
seen half; `--held` counts the other one, too.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from normsniff.decode import spread
from normsniff.evidence import features, load_weights
from normsniff.evidence.weights import probability
from normsniff.measure import samples

from . import split, table


class Case(NamedTuple):
    """One look at one component of a snapshot.

    Attributes:
        held: whether no choice may see it.
        view: ``roles`` or ``shapes``.
        untrained: whether it is of step 0.
        quiet: whether the rule would stop, after a glance and after the first batch.
        odds: log-odds of the kernel with all matrices.
        answered: whether these are an answer by themselves.
        where: run, step and treatment.
    """

    held: bool
    view: str
    untrained: bool
    quiet: dict[str, bool]
    odds: float
    answered: bool
    where: tuple[int, int, str]


def cases() -> Iterator[Case]:
    """Replay every snapshot of the archive."""
    weights = load_weights()
    for lines in table._runs(table.ARCHIVE):
        plan, *records = (json.loads(line) for line in lines)
        held = split.held({**plan["plan"], "run": plan["plan"]["index"]})
        for record in (one for one in records if "roles" in one):
            where = record["run"], record["step"], record["treatment"]
            for view in ("roles", "shapes"):
                look, fit = record[view], weights.kernel_roles if view == "roles" else weights.kernel_shapes
                for component in (look["widths"] or ["main"]) if view == "roles" else ["main"]:
                    matrices = [m for m in look["matrices"] if m["component"] == component]
                    found = _features(view, look, component, _first(matrices, _ALL), all_of_it=True)
                    if found is None:
                        continue
                    silent = features.silence(found, weights.chosen.too_high.value)
                    odds = 0.0 if silent else features.log_odds(view, found, fit.intercept, fit.coefficients, fit.cap)
                    quiet = {name: _is_quiet(view, look, component, _first(matrices, n)) for name, n in _PARTS.items()}
                    answered = probability(abs(odds)) >= fit.answer_from
                    yield Case(held, view, record["step"] == 0, quiet, odds, answered, where)


_ALL = {role: sum(sizes) for role, sizes in samples._BATCHES.items()}
_PARTS: dict[str, Mapping[Any, int]] = {
    "a glance": samples._GLANCE,
    "the first batch": {role: sizes[0] for role, sizes in samples._BATCHES.items()},
}


def _first(matrices: Sequence[Mapping[str, Any]], counts: Mapping[Any, int]) -> list[Mapping[str, Any]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for matrix in matrices:
        groups[matrix["role"]].append(matrix)
    return [
        members[i] for role, members in groups.items() for i in list(spread(len(members)))[: counts.get(role, 0)]
    ]  # fmt: skip


def _features(
    view: str, look: Mapping[str, Any], component: str, matrices: Sequence[Mapping[str, Any]], *, all_of_it: bool
) -> dict[str, float] | None:
    facts = table._facts({"matrices": matrices}, component)
    pools = table._pools(look, component) if all_of_it else {}
    if view == "shapes":
        return features.from_shapes(facts, look["scale_spread"], pools)
    return features.with_roles(facts, look["scale_spread"], pools, normed=component in look["normed"])


def _is_quiet(view: str, look: Mapping[str, Any], component: str, matrices: Sequence[Mapping[str, Any]]) -> bool:
    """Do what `normsniff.evidence.kernel.is_quiet` does, on what the archive keeps of a matrix."""
    facts = table._facts({"matrices": matrices}, component)
    if any(fact.learned is not None and fact.learned.rho is not None for fact in facts):
        return False
    found = _features(view, look, component, matrices, all_of_it=False)
    return found is not None and features.trained(found) <= 0


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--held", action="store_true", help="count the half that no choice has seen, too")
    halves = (False, True) if parser.parse_args().held else (False,)
    found = list(cases())
    print("| half | view | after | stops | of these untrained | of all untrained | largest odds lost | answers lost |")
    print("|---|---|---|---|---|---|---|---|")
    for held in halves:
        for view in ("roles", "shapes"):
            here = [case for case in found if case.held == held and case.view == view]
            for after in _PARTS:
                stopped = [case for case in here if case.quiet[after]]
                lost = [case.where for case in stopped if case.answered]
                print(
                    f"| {'held out' if held else 'seen'} | {view} | {after} | {len(stopped)} of {len(here)} |"
                    f" {sum(case.untrained for case in stopped)} | {sum(case.untrained for case in here)} |"
                    f" {max((abs(case.odds) for case in stopped), default=0.0):.2f} | {lost or 'none'} |"
                )


if __name__ == "__main__":
    main()
