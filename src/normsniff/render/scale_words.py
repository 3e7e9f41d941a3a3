"""What a file stores in place of γ, in words."""

from __future__ import annotations

from ..record import StoredScale

SURE = 0.9
"""Probability from which one answer is told, and below which the values are said not to tell."""

_WORDS = {"scale-2": "γ − 2", "scale-1": "γ − 1", "scale": "γ", "scale+1": "γ + 1", "scale+2": "γ + 2"}
_BY_FAMILY = {True: "γ − 1", False: "γ", None: "γ?"}


def stored(told: StoredScale | None, zero_centred: bool | None) -> str:
    """Return what is stored: by the values, or where these were not looked at, by the family.

    A graph that computes the norm shows what it multiplies by: there is nothing to tell.
    """
    if told is None or _computed(told, zero_centred):
        return _BY_FAMILY[zero_centred]
    (likeliest, odds), *others = told.probabilities.items()
    if odds < SURE:
        return f"{_WORDS[likeliest]} or {_WORDS[others[0][0]]}?"
    wrong = told.expected is not None and told.expected != likeliest
    return f"{_WORDS[likeliest]}, not {_WORDS[told.expected or '']}" if wrong else _WORDS[likeliest]


def why(told: StoredScale | None, zero_centred: bool | None = None) -> str:
    """Return a sentence where the values do not tell, or contradict the family or the graph; else ""."""
    if told is None:
        return ""
    (likeliest, odds), *others = told.probabilities.items()
    if _computed(told, zero_centred):
        known = _BY_FAMILY[zero_centred]
        if odds < SURE or _WORDS[likeliest] == known:
            return ""
        return f"the graph takes it for {known}; the values are rather those of {_WORDS[likeliest]} ({odds:.1%})"
    if odds < SURE:
        both = ", ".join(f"{_WORDS[name]} {p:.0%}" for name, p in [(likeliest, odds), *others] if p >= 0.005)
        return f"the values do not tell what is stored: {both}"
    if told.expected is not None and told.expected != likeliest:
        return (
            f"the values are those of {_WORDS[likeliest]} ({odds:.1%}); the family stores {_WORDS[told.expected]} here"
        )
    return ""


def _computed(told: StoredScale, zero_centred: bool | None) -> bool:
    """Whether the file itself says what it stores, and no family does."""
    return told.expected is None and zero_centred is not None
