"""Forms of blocks: given which slots of a block hold a norm, who reads which of them. One row a form.

A block is x + f(norm(x)) (pre-norm), norm(x + f(x)) (post-norm), or x + norm(f(x)), whose stream is read as it is.
Names tell slots (`conventions.SLOTS`), and mean different things in different families: the norm called
``post_attention_layernorm`` stands before the MLP in Llama and behind the attention in GLM 4. What else is there tells.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

Order = Literal["pre", "post", "by name"]
"""Norms before the sub-layers, behind them; or names that both share, which the rest of the network decides."""


class BlockForm(msgspec.Struct, frozen=True):
    """A row: the norms of a block, and what they are there for.

    Attributes:
        example: a model of this form, or how it differs from one.
        has: slots that must hold a norm.
        lacks: slots that must not.
        first: slot of the norm before (behind, if post-norm) the attention; None where there is none.
        second: the same for the MLP.
        order: where the two stand.
        cross: slot of the norm of the cross-attention, if the block has one.
        returned: slots that rule the row out if their norms stand in the branch, on its way back into the stream.
    """

    example: str
    has: frozenset[str]
    lacks: frozenset[str]
    first: str | None
    second: str | None
    order: Order = "by name"
    cross: str = "cross"
    returned: frozenset[str] = frozenset()


class Read(msgspec.Struct, frozen=True):
    """Norms of one block by their readers, as numbers of sites.

    Attributes:
        attention: read by attention.
        mlp: read by the MLP.
        cross: read by the queries of cross-attention.
        out: the norm that closes a post-norm block; the next block reads it.
    """

    attention: int | None = None
    mlp: int | None = None
    cross: int | None = None
    out: int | None = None


FIRST_OF_PAIR, SECOND_OF_PAIR, NOT_OF_SELF = "pre-attention 1", "pre-attention 2", "post-attention, but not self's"
"""Slots beside those of the conventions: two norms whose names differ by a number; a norm behind attention by its name,
but not by the name of self-attention."""

_SLOTS = {
    "A": "pre-attention", "A1": FIRST_OF_PAIR, "A2": SECOND_OF_PAIR, "M": "pre-mlp", "X": "cross",
    "P": "post-attention", "P-": NOT_OF_SELF, "C": "post-mlp", "L": "",
}  # fmt: skip
"""Short for the table. L is loose: its name says nothing of where it stands."""


def _form(
    example: str,
    has: str,
    lacks: str,
    first: str,
    second: str,
    order: Order = "by name",
    cross: str = "X",
    returned: str = "",
) -> BlockForm:
    def slots(text: str) -> frozenset[str]:
        return frozenset(_SLOTS[word] for word in text.split())

    return BlockForm(
        example, slots(has), slots(lacks), _SLOTS.get(first), _SLOTS.get(second), order, _SLOTS[cross], slots(returned)
    )


# The first that fits; `-` is no norm. Without a row (OLMo 2), only cross-attention reads a norm of the block.
FORMS = (
    # example                     has      lacks      first second order
    _form("GPT-2",                "A M",   "",        "A",  "M"),
    _form("RoBERTa-PreLayerNorm", "M P",   "A L",     "P",  "M", returned="P"),
    _form("wav2vec 2.0",          "M L",   "A",       "L",  "M"),
    _form("ModernBERT, block 0",  "M",     "A L",     "-",  "M"),
    _form("Parakeet",             "A L",   "M",       "A",  "L"),
    _form("Falcon-40B as GGUF",   "A1 A2", "M L",     "A2", "A1"),
    _form("Llama",                "A P-",  "M L",     "A",  "P-"),
    _form("Llama, MLP unnormed",  "A P",   "M L",     "A",  "-"),
    _form("Cohere, GPT-J",        "A",     "M L P",   "A",  "A"),
    _form("ESM",                  "P L",   "A M C",   "P",  "L", "pre"),
    _form("T5, Mamba",            "L",     "A M P C X", "L", "L", "pre", cross="L"),
    _form("T5, cross named",      "L X",   "A M P C", "L",  "L", "pre"),
    _form("BERT",                 "P C",   "A M",     "P",  "C", "post", returned="P C"),
    _form("Fun-ASR, block 0",     "P",     "A M C L", "P",  "P", "post", returned="P"),
    _form("FNet, SqueezeBERT",    "C",     "A M P",   "-",  "C", "post", returned="C"),
)  # fmt: skip


def form_of(slots: Collection[str], returned: Collection[str]) -> BlockForm | None:
    """Return the row of a block, or None if no row fits.

    Args:
        slots: those that hold a norm.
        returned: those whose norm stands in the branch, on its way back into the stream.
    """
    present, inside = set(slots), set(returned)
    return next(
        (form for form in FORMS if form.has <= present and not form.lacks & present and not form.returned & inside),
        None,
    )


def read(order: Literal["pre", "post"], first: int | None, second: int | None, cross: int | None) -> Read:
    """Return who reads the norms of a block: first and second of its form, and that of its cross-attention."""
    if order == "pre":
        return Read(first, second, cross)
    if cross is None:
        return Read(mlp=first, out=second)
    # self-attention, its norm, cross-attention, its norm, MLP, its norm
    return Read(mlp=cross, cross=first, out=second)
