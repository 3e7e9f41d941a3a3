"""Norms recognised by what they do: a region of the graph is run on a handful of numbers.

It is arithmetic, not inference: no weight is read but the region's own constants. Where something cannot be run or its
sizes are not known, the answer is *unknown*, which is never taken for *no norm*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ... import meter
from ...checkpoint import Checkpoint, Graph
from .arithmetic import CannotRunError, Numbers
from .bench import Bench
from .judge import Match, agree, contrast, judge, sample
from .places import Places
from .regions import Region
from .sizes import Shape
from .trial import AS_NORM, Trial, is_norm
from .view import GraphView

_LEVELS = 10  # dominators above a division: a norm spelled out has four at most
_SMALL_AXES = (4, 5, 6, 7, 8, 9, 10, 11)  # stand-ins for long axes that nothing in the region ties to their length
_LONG = 16
_RUN = 1 << 17
"""Elements that a region is run on: some 50 tokens of 2,048 channels, 5 ms for a norm."""
_WORK = 1 << 29
"""Elements times operators that may be run for one graph: about a second. Exporters use a handful of forms."""
_VISITS = 500_000
"""Operators of regions that may be looked at for one graph, about a second; no real one came to a tenth of it."""
_DOING = "running regions"
_LOOKING, _SPELLING, _SPEAKING = 2, 3, 8
"""Steps for an operator of a region: to look at it, to write down what equal regions share, to ask for its lengths."""
_RUNNING, _RUNNING_ONE, _ELEMENTS = 150, 15, 400
"""Steps for a sample, for an operator that runs on it, and elements of one operator in a step."""
_DIVIDING = frozenset(["Div", "Reciprocal", "Rsqrt", "Pow", "Exp", "Mod"])
_ON_A_GUESS = "it is no norm on the sizes that were tried, but its own are not known"
_WIDEST = 1 << 14  # of a guessed width
_SCALES = (30.0, 1.0)
"""Of the numbers that are run: at 30 an ε of 0.1 is noise; at 1 bounds that are meant for float16 are far."""


@dataclass(frozen=True, slots=True)
class Found:
    """A norm's core.

    Attributes:
        match: what it computes.
        region: the operators.
        scaled_inside: whether it holds only with the scales of its channels taken away: one lies inside.
        beyond_reshape: whether there is a value before a reshape of which it is no norm: groups may be pooled.
    """

    match: Match
    region: Region
    scaled_inside: bool
    beyond_reshape: bool


@dataclass(frozen=True, slots=True)
class Untold:
    """A region that pools and divides and was not understood."""

    end: int
    why: str


class Probe:
    """Runs regions of one graph; equal regions are run once.

    Attributes:
        flow: the data paths.
        sizes: sizes of the values.
        places: where norms may be.
    """

    def __init__(self, view: GraphView, checkpoint: Checkpoint, graph: Graph) -> None:
        self._bench = Bench(view, checkpoint, graph)
        self.flow, self.sizes = self._bench.flow, self._bench.sizes
        self.places = Places(self._bench)
        self._work = self._visits = 0
        self._seen: dict[Any, tuple[Match, bool] | str | None] = {}

    def examine(self, end: int, done: set[int], *, strict: bool = True) -> Found | Untold | None:
        """Say what an operator ends: the farthest value that it is a norm of wins.

        Args:
            end: index of the operator.
            done: operators of norms that were found before: what they put out is data.
            strict: whether the region must pool and divide by itself (it need not where a fused norm is part of it).

        Returns:
            The core; None if it is no norm; or why that cannot be told.
        """
        if not self.flow.operators[end].outputs:
            return None
        fused = is_norm(self.flow.operators[end])
        best: Found | None = None
        why, ran = "", False
        for start, region in self.flow.regions(end, _LEVELS, first_only=fused):
            self._visits += len(region.inside)
            meter.charge(_LOOKING * len(region.inside), _DOING)
            if self._visits > _VISITS:
                return Untold(end, "more regions than may be looked at")
            if (
                start in done
                or (region.inside - {end}) & done
                or any(self.places.stops(k) for k in region.inside - {end})
            ):
                break
            kinds = {self.flow.operators[k].op_type for k in region.inside}
            if not fused and strict and not (kinds & (_DIVIDING | AS_NORM) and self._has_pool(region)):
                continue
            more = frozenset() if best is None else region.inside - best.region.inside
            if best is not None and not self._may_change(more) and not self._regroups(more):
                continue
            # a bias in front of a norm must not pass for a shift inside of it
            verdict = self._run(region, flat=best is None or best.scaled_inside)
            if isinstance(verdict, str) and not (verdict == _ON_A_GUESS and best is not None):
                if best is None or self._may_change(more):
                    why = why or verdict
                continue
            ran = ran or self._has_pool(region)  # what does not even pool settles nothing
            if isinstance(verdict, tuple):
                best = Found(verdict[0], region, verdict[1], False)
                why = ""
            elif best is not None and "Reshape" in kinds:
                best = Found(best.match, best.region, best.scaled_inside, True)
        if why and (best is not None or not ran):
            return Untold(end, why)
        return best

    def _may_change(self, more: Iterable[int]) -> bool:
        """Whether further operators in front of a norm may make another norm of it: only pooling and joining do."""
        return any(self.places.is_pool(k) or self.flow.operators[k].op_type == "Concat" for k in more)

    def _regroups(self, more: Iterable[int]) -> bool:
        """Whether further operators change what is beside what: groups may be normalised."""
        return any(self.flow.operators[k].op_type == "Reshape" for k in more)

    def _has_pool(self, region: Region) -> bool:
        return any(self.places.is_pool(k) or self.flow.operators[k].op_type in AS_NORM for k in region.inside)

    def _run(self, region: Region, *, flat: bool) -> tuple[Match, bool] | str | None:
        """Run a region on the sizes that it has, else on likely ones; return the match, None, or why it is unknown."""
        known = self.sizes.shapes.get(region.source)
        why, ran = "its sizes cannot be told", False
        if known is not None and 0 in known:
            return why
        for shape in self._shapes(region, known):
            if math.prod(shape) > _RUN:
                why = "its values are too large to be run"
                continue
            for flattened in (False, True)[: 1 + flat]:
                verdict = self._run_on(region, shape, flattened)
                if isinstance(verdict, tuple):
                    return verdict
                ran = ran or verdict is None
                why = verdict or why
        if ran:
            return None if known is not None else _ON_A_GUESS
        return why

    def _run_on(self, region: Region, shape: Shape, flat: bool) -> tuple[Match, bool] | str | None:
        meter.charge(_SPELLING * len(region.inside), _DOING)
        trial = Trial(self._bench, region, shape, flat)
        try:
            key = (trial.key(), shape)
        except CannotRunError as error:
            return str(error)
        self._work += 0 if key in self._seen else math.prod(shape) * len(region.inside)
        if self._work > _WORK:
            return "more regions than may be run"
        if key not in self._seen:
            self._seen[key] = self._match(trial, region, shape, flat)
        return self._seen[key]

    def _match(self, trial: Trial, region: Region, shape: Shape, flat: bool) -> tuple[Match, bool] | str | None:
        try:
            for scale in _SCALES if trial.clamps else _SCALES[:1]:
                n = len(region.inside)
                meter.charge(_RUNNING + _RUNNING_ONE * n + math.prod(shape) * n // _ELEMENTS, _DOING)
                x = sample(shape, scale, 7)
                first = judge(x, trial.run(x))
                if first is None:
                    continue
                x = contrast(x, 8)
                if agree(first, judge(x, trial.run(x))):
                    return first, flat
        except CannotRunError as error:
            return str(error)[:200]
        return None

    def _shapes(self, region: Region, known: Shape | None) -> Iterator[Shape]:
        tied = self._tied(region)
        if known is None:
            for d in [n for n in tied if 2 < n < _WIDEST][:2] or [17]:
                yield from ((3, 4, d), (4, d), (3, d, 5), (3, d, 5, 7), (3, 4, 5, d))
                yield from ((*target[:-1], d) for target in self._targets(region))
            return
        small = iter([n for n in _SMALL_AXES if n not in tied and n not in known])
        open_ = self.sizes.guessed - set(tied)
        shorter = tuple(
            n if n <= _LONG and not (i == 0 and n in open_ and n > 2) else 2 if i == 0 and n in open_
            else n if n in tied else next(small, n)
            for i, n in enumerate(known)
        )  # fmt: skip
        if shorter != known:
            yield shorter
        yield known

    def _targets(self, region: Region) -> Iterator[Shape]:
        """Yield the shapes that a region has written into it."""
        for k in sorted(region.inside):
            op = self.flow.operators[k]
            value = (
                self.sizes.values.get(op.inputs[1]) if op.op_type in ("Reshape", "Expand") and op.inputs[1:] else None
            )
            if value is not None and value.ndim == 1 and value.size and (value > 0).all():
                yield tuple(int(n) for n in value)

    def _tied(self, region: Region) -> list[int]:
        """Return lengths that the constants of a region, and the vectors after it, have or speak of."""
        found: list[int] = []
        spoken: list[int] = []
        flow = self.flow
        meter.charge(_SPEAKING * len(region.inside), _DOING)
        after = [op for name in flow.operators[region.end].outputs[:1] for op in self._bench.view.near(name)[:8]]
        for op in (*(flow.operators[k] for k in sorted(region.inside)), *after):
            for name in op.inputs:
                if name and flow.is_fixed(name):
                    shape = [n for n in self.sizes.shapes.get(name, ()) if n > 1]
                    found = shape + found if len(shape) == 1 else found + shape
                    value = self.sizes.values.get(name)
                    spoken += [] if value is None else _spoken_of(value)
        return list(dict.fromkeys(found + spoken))


def _spoken_of(value: Numbers) -> list[int]:
    """Return the whole numbers that small constants are, or are the inverse, the root, or one less of."""
    found: list[int] = []
    for number in value.reshape(-1)[:8].tolist():
        size = abs(float(number))
        forms = (size, 1 / size if size else 0, size**2, 1 / size**2 if size else 0, size + 1)
        found += [round(n) for n in forms if 2 <= n < 1 << 20 and abs(n - round(n)) < 1e-3 * n]
    return found
