"""epsilon: absent, zero, absurd, or not the same at the same place of all blocks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from ..evidence.epsilons import epsilon_at, epsilon_keys
from ..families import epsilon_of
from ..record import Finding
from ..words import among
from .subject import Subject

_LEAST, _MOST = 1e-15, 1.1e-2
"""Real ones go from 1e-12 (BERT) to 1e-3 (Keras), and 1e-2 in a few audio networks."""


def find(subject: Subject) -> Iterator[Finding]:
    """Yield what is odd about epsilons."""
    for key, value in epsilon_keys(subject.checkpoint).items():
        if _is_absurd(value):
            yield _absurd(key, value, "main", ())
    for group in subject.groups:
        known = [(one, one.site.epsilon) for one in group.norms if one.site.epsilon is not None]
        wrong: dict[float, list[str]] = {}
        for one, value in known:
            if _is_absurd(value):
                wrong.setdefault(math.nan if math.isnan(value) else value, []).append(one.name)
        for value, names in wrong.items():
            yield _absurd("the norm's own epsilon", value, group.component, tuple(names))
        values = Counter(float(f"{value:.3g}") for _, value in known)
        if len(values) > 1 and not wrong and not group.running and values.most_common(1)[0][1] >= 2:
            common = values.most_common(1)[0][0]
            odd = [(one.name, value) for one, value in known if float(f"{value:.3g}") != common]
            yield Finding(
                code="epsilon",
                severity="note",
                component=group.component,
                norms=tuple(name for name, _ in odd),
                reason=f"epsilon is {odd[0][1]:g} in {among(len(odd), len(known), 'norm')} at {group.place},"
                f" else {common:g}",
                cure="compare with the original: an exporter may have folded or rounded it",
            )
    yield from _absent(subject)
    yield from _against_family(subject)


def _against_family(subject: Subject) -> Iterator[Finding]:
    """A warning where all published models of the family have one; else a note, against its default configuration."""
    fact, declared = subject.fact, epsilon_at(epsilon_keys(subject.checkpoint), "main")
    if fact is None or declared is None or _is_absurd(declared[1]):
        return
    (key, value), name = declared, fact.name[:60]
    published = epsilon_of(fact.name)
    usual = published.value if published is not None else fact.epsilon
    if usual is None or math.isclose(value, usual, rel_tol=1e-3):
        return
    words = f"{name} models use {usual:g}" if published is not None else f"the default of {name} is {usual:g}"
    yield Finding(
        code="epsilon",
        severity="note" if published is None else "warning",
        component="main",
        norms=(),
        reason=f"{key} = {value:g}; {words}",
        cure="compare with the original configuration; many models of a family have another one on purpose"
        if published is None
        else "take the value of the original configuration, unless the model was trained with another one",
        details={
            "key": key,
            "value": value,
            "usual": usual,
            "source": fact.source if published is None else published.source,
        },
    )


def _absent(subject: Subject) -> Iterator[Finding]:
    config, fact = subject.checkpoint.config, subject.fact
    named = any(key.endswith(("epsilon", "eps")) for key in config or ())
    if config is None or fact is None or named or not subject.norms or epsilon_keys(subject.checkpoint):
        return
    if subject.checkpoint.graph is not None or any(one.site.epsilon is not None for one in subject.norms):
        return
    yield Finding(
        code="epsilon",
        severity="note",
        component="main",
        norms=(),
        reason="the configuration has no key for it: runtimes fall back on their own default, and these differ",
        cure="write the key that the family uses into config.json (rms_norm_eps, layer_norm_eps …)",
    )


def _is_absurd(value: float) -> bool:
    return not math.isfinite(value) or not _LEAST <= value <= _MOST


def _absurd(key: str, value: float, component: str, names: tuple[str, ...]) -> Finding:
    zero = value == 0
    return Finding(
        code="epsilon",
        severity="warning" if zero else "error",
        component=component,
        norms=names,
        reason=f"{key} = {value:g}: " + ("a vector of zeros divides by zero" if zero else "models use 1e-12 to 1e-2"),
        cure="take the value of the original configuration",
        details={"key": key, "value": value if math.isfinite(value) else str(value)},
    )
