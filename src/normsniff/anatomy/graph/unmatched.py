"""What the patterns leave: norms that they do not know, norms that they took for others, and what nobody understands.

The patterns of `norms` are the fast path. Here every pooling that they do not explain, and that divides something
a few operators on, is put to the probe; so is every norm that is fed by such a pooling or by a joined value, since what
a norm computes depends on what it is given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...checkpoint import Checkpoint, Graph, Operator
from ..parts import Unexplained
from .doubts import WITH_SCALE, between, is_doubtful
from .norms import Matched, Norm
from .poolings import NOT_LINEAR, may_be_borrowed, may_pool, reach
from .view import RESHAPING, GraphView
from .vocabulary import is_defined, named_norm

if TYPE_CHECKING:
    from .after import After
    from .judge import Match
    from .probe import Found, Probe

_BY_NAME = "the operator's name, which no public operator set defines"


class Complete(NamedTuple):
    """All that was found in a graph."""

    norms: list[Norm]
    others: Counter[str]
    unexplained: tuple[Unexplained, ...]


def complete(view: GraphView, checkpoint: Checkpoint, graph: Graph, findings: Sequence[Matched]) -> Complete:
    """Return what a graph normalises with, with what the patterns found as a start.

    Args:
        view: the graph.
        checkpoint: for the few constants that are run.
        graph: likewise.
        findings: of the patterns.
    """
    opaque, named = _undefined(view, checkpoint.format)
    search = _Search(view, checkpoint, graph, findings)
    search.go()
    norms = [*search.norms, *named]
    order = {id(op): k for k, op in enumerate(view.operators)}
    norms.sort(key=lambda norm: order.get(id(norm.op), len(order)))
    others = Counter(search.others) + Counter(kind for kind, _ in opaque if kind)
    return Complete(norms, others, (*(thing for kind, thing in opaque if not kind), *search.unexplained))


def _undefined(view: GraphView, file_format: str) -> tuple[list[tuple[str, Unexplained]], list[Norm]]:
    """Return operators that nobody defines: those that name another norm with its name, and norms in words."""
    opaque: list[tuple[str, Unexplained]] = []
    named: list[Norm] = []
    known: dict[tuple[str, str], bool] = {}
    for op in view.operators:
        key = op.domain, op.op_type
        if key not in known:
            known[key] = is_defined(*key, file_format)
        if known[key]:
            continue
        kind, other = named_norm(op)
        where = op.name or (op.outputs[0] if op.outputs else op.op_type)
        what = f"{op.domain}::{op.op_type}" if op.domain else op.op_type
        if kind is not None:
            stored = [weight for name in op.inputs if (weight := view.vector(name)) is not None]
            named.append(
                Norm(
                    op, kind, tuple(name for name in op.inputs if name and not view.is_stored(name)),
                    op.outputs[0] if op.outputs else "", scale=stored[0] if stored else None,
                    shift=stored[1] if kind == "LayerNorm" and len(stored) > 1 else None,
                    why=f"{what[:100]}: {_BY_NAME}", by_name=True,
                )
            )  # fmt: skip
        elif other is not None and other != "norm":
            opaque.append((other, Unexplained("operator", where, "")))
        else:
            why = "its name speaks of a norm, not of which" if other else "no public operator set defines it"
            opaque.append(("", Unexplained("operator", where, f"{what[:100]}: {why}")))
    return opaque, named


class _Search:
    """The poolings of one graph that no pattern explains."""

    def __init__(self, view: GraphView, checkpoint: Checkpoint, graph: Graph, findings: Sequence[Matched]) -> None:
        self._view, self._checkpoint, self._graph = view, checkpoint, graph
        self._findings = findings
        self.norms: list[Norm] = [what for _, what in findings if isinstance(what, Norm)]
        self._others = {id(op): what for op, what in findings if isinstance(what, str)}
        self._index = {id(op): k for k, op in enumerate(view.operators)}
        self.unexplained: list[Unexplained] = []

    @property
    def others(self) -> Iterator[str]:
        """Normalisers that are neither LayerNorm nor RMSNorm."""
        return iter(self._others.values())

    def go(self) -> None:
        """Put what is left to the probe, if anything is."""
        explained = {id(op) for norm in self.norms for op in between(self._view, norm)}
        pools = [op for op in self._view.operators if id(op) not in explained and may_pool(self._view, op)]
        divides = reach(self._view, pools, explained)[1]
        reached, _ = reach(self._view, [op for op in pools if op.op_type not in NOT_LINEAR], explained)
        doubtful = [norm for norm in self.norms if is_doubtful(self._view, norm, reached, explained)]
        borrowed = [op for op, what in self._findings if isinstance(what, str) and may_be_borrowed(self._view, op)]
        if not divides and not doubtful and not borrowed:
            return
        from .probe import Probe

        probe = Probe(self._view, self._checkpoint, self._graph)
        offset = probe.flow.first
        for norm in doubtful:
            self._check(probe, norm)
        done = {
            offset + self._index[id(op)]
            for norm in self.norms
            for op in between(self._view, norm)
            if id(op) in self._index
        }
        todo = {offset + self._index[id(op)] for op in borrowed}
        if divides:
            todo |= set(probe.places.candidates((offset + self._index[id(op)] for op in pools), done))
        for k in sorted(todo):
            if k not in done:
                done |= self._put(probe, k, done)

    def _check(self, probe: Probe, norm: Norm) -> None:
        """Put a norm that a pattern found to the probe, and believe the probe."""
        from .probe import Untold
        from .trial import FUSED

        op = norm.op if norm.op.op_type in FUSED else self._view.producer(norm.output)
        if op is None or id(op) not in self._index:
            return
        index = self.norms.index(norm)
        found = probe.examine(probe.flow.first + self._index[id(op)], set(), strict=False)
        if isinstance(found, Untold) and self._keeps_shape(norm):
            return
        if found is None or isinstance(found, Untold):
            self.norms.pop(index)
            if found is not None:
                self._leave(op, f"{norm.why}, but {found.why}")
            return
        if norm.scale is None and norm.shift is None and norm.op.op_type not in WITH_SCALE:
            again, other = self._named(probe, found, op)
            self.norms[index : index + 1] = [] if again is None else [again]
            if other is not None:
                self._others[id(op)] = other
            elif again is None:
                self._leave(op, "it normalises without a scale, over an axis that may be of positions")
            return
        if found.match.kind != norm.kind and self._view.producer(found.region.source) in between(self._view, norm):
            self.norms.pop(index)
            self._leave(op, f"{found.match.kind} of a value from which no mean of its own was subtracted")
            return
        if found.match.kind != norm.kind or found.region.source != norm.sources[0]:
            why = f"run on numbers: {found.match.kind} of {found.region.source[:60]} ({norm.why})"
            self.norms[index] = norm.changed(found.match.kind, found.region.source, why)

    def _keeps_shape(self, norm: Norm) -> bool:
        """Whether only the dropped axis of a reduction was in doubt, and a reshape puts it back."""
        kinds = {op.op_type for op in between(self._view, norm)}
        return bool(kinds & RESHAPING) and (norm.scale is not None or norm.shift is not None)

    def _put(self, probe: Probe, k: int, done: set[int]) -> set[int]:
        """Examine one candidate; return the operators that it explains."""
        from .probe import Untold

        found, op = probe.examine(k, done), probe.flow.operators[k]
        if found is None:
            return set()
        if isinstance(found, Untold):
            self._leave(op, found.why)
            return set()
        inside = set(found.region.inside)
        known = [id(probe.flow.operators[j]) for j in inside if id(probe.flow.operators[j]) in self._others]
        norm, other = self._named(probe, found, op)
        names = [self._others.pop(key) for key in known]
        if isinstance(norm, Norm):
            self.norms.append(norm)
            return {*inside, *(probe.flow.producers[norm.output] for _ in (0,) if norm.output in probe.flow.producers)}
        if other is None:
            self._leave(op, "it normalises without a scale, over an axis that may be of positions")
        else:
            self._others[id(op)] = names[0] if names else other
        return inside

    def _named(self, probe: Probe, found: Found, op: Operator) -> tuple[Norm | None, str | None]:
        """Return the norm that a core is with what follows it, or what else it is; neither where that is open."""
        from .after import follow

        match, value = found.match, op.outputs[0]
        after = follow(self._view, probe.sizes, value, match.axes, match.n)
        other = _other_kind(found, op, after)
        bare = after.gain == "" and after.shift is None and not found.scaled_inside
        if not other and bare:
            given = self._view.plain(found.region.source) in self._view.inputs
            if given and self._view.consumers(after.output):
                other = "StandardisedInput"
            elif op.op_type == "InstanceNormalization" and not _over_channels(
                match, probe.sizes.shapes.get(found.region.source)
            ):
                other = "InstanceNorm"
            elif not given and not _over_channels(match, probe.sizes.shapes.get(found.region.source)):
                return None, None
        if other:
            return None, other
        shape = probe.sizes.shapes.get(after.output)
        why = f"run on numbers: {match.kind} over {match.n} values"
        axis = after.axes[-1] if after.axes is not None and len(after.axes) == 1 else -1
        norm = Norm(
            op, match.kind, (found.region.source,), after.output, axis, None if shape is None else len(shape),
            after.scale, after.shift, why,
        )  # fmt: skip
        return norm, None

    def _leave(self, op: Operator, why: str) -> None:
        where = op.name or (op.outputs[0] if op.outputs else op.op_type)
        self.unexplained.append(Unexplained("region", where, why[:300]))


def _over_channels(match: Match, shape: tuple[int, ...] | None) -> bool:
    """Whether what is normalised is where channels are: the last axes, or the second of an image."""
    axes = match.source_axes
    return shape is None or max(axes, default=0) == len(shape) - 1 or (len(shape) == 4 and axes == (1,))


def _other_kind(found: Found, op: Operator, after: After) -> str:
    """Name the norm that a core is if it is not LayerNorm or RMSNorm after all; "" if it is."""
    match = found.match
    if after.gain == "other":
        return "InstanceNorm" if match.kind == "LayerNorm" else "GroupNorm"
    if found.scaled_inside or after.gain == "scale":
        return ""
    of_size_one = (1.0, math.sqrt((match.n - 1) / match.n))  # the second where the variance is divided by n - 1
    if not any(abs(f / k - 1) < 0.05 for f in (match.factor, match.factor * after.factor) for k in of_size_one):
        return "L2Norm"
    grouped = op.op_type in ("InstanceNormalization", "GroupNormalization")
    if grouped and (found.beyond_reshape or after.regrouped):
        return "GroupNorm"
    return "GroupNorm" if found.beyond_reshape and after.regrouped else ""
