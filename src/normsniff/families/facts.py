"""What is known of model families: which norm an architecture uses, wherever its name alone tells.

The facts are data: `data/families.json` is generated (tools/build_family_data.py), and
`data/family_rules.json` is written by hand for switches and exceptions. A fact speaks of a *name*;
whether the file at hand deserves that name is for the evidence to weigh.
"""

from __future__ import annotations

import msgspec

from ..record import Label
from .tables import Counts, Epsilon, Family, FamilyRow, Shift, data, rules

MAIN_TOWERS = ("main", "text", "encoder", "decoder", "talker")
"""Components whose stream is the main one, if the family has no norms of their own for them."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one architecture or model type.

    Attributes:
        name: the architecture, model type or setting that the fact is about.
        norm: of the main residual stream; ``none`` if it uses neither (then `note` says what).
        components: towers whose norm is known, by component name; empty if there is one tower. `main` is among
            them: files differ in whether the main tower has a name.
        shift: whether its norms carry a bias.
        parametric: False if its norms store no scale, None if they do or it varies.
        zero: path endings of norms that store γ - 1; ``"*"`` stands for all.
        plain: path endings of norms that store γ all the same, and that no converter changes; the longer ending wins.
        zero_in: components that `zero` speaks of; empty for all.
        inner: path endings of norms whose kind differs from their stream's.
        epsilon: of its norms in the family's default configuration; None if unknown.
        baked: what a converter did to the scales, or "".
        scale_known: whether `zero`, where it is empty, says that γ itself is stored; not of what a setting alone tells.
        language_only: it speaks of the language model, and of no tower beside it.
        disputed: the label that another implementation of the family gives, or None.
        note: anything else that a person should know.
        source: where the fact comes from.
        date: of the source, as precisely as known.
    """

    name: str
    norm: Label
    components: dict[str, Label] = {}
    shift: Shift = "unknown"
    parametric: bool | None = None
    zero: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    zero_in: tuple[str, ...] = ()
    inner: dict[str, Label] = {}
    epsilon: float | None = None
    baked: str = ""
    scale_known: bool = True
    language_only: bool = False
    disputed: Label | None = None
    note: str = ""
    source: str = ""
    date: str = ""

    def label(self, component: str) -> Label:
        """The norm of one tower; of the main stream where the tower belongs to it; else what is not known."""
        beside = component not in MAIN_TOWERS and (self.components or self.language_only)
        return self.components.get(component, "undetermined" if beside else self.norm)

    def with_main(self) -> Fact:
        """The same, `main` being among the components where there are any."""
        if not self.components or "main" in self.components:
            return self
        return msgspec.structs.replace(self, components={**self.components, "main": self.norm})

    def inner_kind(self, path: str) -> Label | None:
        """The norm at `path` where it differs from its stream's, else None."""
        return next((kind for end, kind in self.inner.items() if f".{path}".endswith(f".{end}")), None)

    def converted(self, path: str) -> bool:
        """Whether the converter has changed the scale of the norm at `path`."""
        return bool(self.baked) and not any(f".{path}".endswith(f".{end}") for end in self.plain)

    def offset(self, path: str, component: str = "main") -> float:
        """What to add to the stored scale of the norm at `path` to get γ: 1.0 or 0.0."""
        if not self.zero or (self.zero_in and component not in self.zero_in):
            return 0.0
        tail = "." + path
        stored = max((len(end) for end in self.zero if end == "*" or tail.endswith("." + end)), default=0)
        plain = max((len(end) for end in self.plain if tail.endswith("." + end)), default=0)
        return 1.0 if stored > plain else 0.0


def epsilon_of(name: str) -> Epsilon | None:
    """The epsilon that all published models of a family have, as far as is known; None where they differ.

    Args:
        name: of a fact: an architecture or a model type.
    """
    return next((row for row in rules().epsilon if name in row.names), None)


def counts() -> Counts:
    """How often names go with kinds over the model types that were probed; for families that no row covers."""
    return data().counts


def label_of(word: str) -> Label:
    """Return the label that a row of a table gives; "undetermined" if something beside the name decides."""
    return word if word in ("LayerNorm", "RMSNorm", "mixed", "none") else "undetermined"  # type: ignore[return-value]  # narrowed by the test


def from_family(name: str, family: Family, date: str = "") -> Fact:
    """Return the fact that a row written by hand, or a plug-in's, states."""
    return Fact(
        name=name, norm=family.norm, shift=family.shift, parametric=family.parametric, note=family.note,
        source=family.source, date=date,
    )  # fmt: skip


def from_row(name: str, row: FamilyRow, norm: Label, source: str, date: str) -> Fact:
    """Return the fact that a generated row states, once its norm is known."""
    return Fact(
        name=name, norm=norm, components=row.components, shift=row.shift, parametric=row.parametric, zero=row.zero,
        plain=row.plain, inner=row.inner, epsilon=row.epsilon, baked=row.baked, note=row.note, source=source, date=date,
    )  # fmt: skip
