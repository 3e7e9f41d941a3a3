"""What an abstention says beside "undetermined": what was looked for, found and not understood, and what would help."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from .. import families
from ..anatomy.parts import Anatomy
from ..checkpoint import Checkpoint
from ..record import Account, EvidenceKind
from ..words import amount
from .contents import Content

_NAMED = 10
"""Unexplained things that a record names: enough to see the pattern."""

_CONFIG = "put the model's config.json beside the file"

_BASIS = {
    "graph": "operators that divide by a mean square or a standard deviation",
    "names": "names of norms, their scales and shifts",
    "shapes": "matrices that share a width (names, operators and shifts left aside)",
}


def account_of(anatomy: Anatomy) -> Account | None:
    """Return the account of the file as the record carries it; None where names and operators were not looked at."""
    if not anatomy.explained and not anatomy.unexplained:
        return None
    return Account(
        explained=anatomy.explained,
        unexplained=len(anatomy.unexplained),
        names=[f"{one.where} ({one.why})" if one.why else one.where for one in anatomy.unexplained[:_NAMED]],
    )


def sentence(checkpoint: Checkpoint, anatomy: Anatomy, content: Content | None = None) -> str:
    """Return what was looked for, what was found, and what was not understood; or what the file is, if no network."""
    if content is not None:
        return content.reason
    if _is_empty(checkpoint):
        return (
            f"all {len(checkpoint.tensors)} tensors are empty: the weights lie elsewhere, as those of a ZeRO-3 run do"
        )
    stream = sum(site.role == "stream" for site in anatomy.sites)
    others = ", ".join(f"{n} {kind}" for kind, n in (anatomy.others or {}).items())
    found = f"{amount(stream, 'norm')} of a stream" if stream else "no norm of a stream"
    found += f", {amount(len(anatomy.matrices), 'matrix', 'matrices')} along it" if anatomy.matrices else ""
    found += f", {others}" if others else ""
    left = len(anatomy.unexplained)
    sought, missed = _BASIS[anatomy.basis], f"{amount(left, 'thing')} not understood"
    if anatomy.basis == "shapes" and (anatomy.explained or left):
        sought = f"{_BASIS['names']}, and {sought.partition(' (')[0]}"
    elif anatomy.basis == "shapes":
        missed = "what the vectors are is not known"
    if not left and (anatomy.basis != "shapes" or anatomy.explained):
        missed = "everything was understood"
    return f"looked for {sought}; found {found}; {missed}"


def _is_empty(checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.tensors) and all(0 in tensor.shape for tensor in checkpoint.tensors.values())


def next_steps(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    kinds: Collection[EvidenceKind],
    known: families.Fact | None,
    content: Content | None = None,
    *,
    partly: bool,
    several: bool = False,
) -> list[str]:
    """Return what would help to tell, the most promising first.

    Args:
        checkpoint: the file.
        anatomy: what was found in it.
        kinds: the kinds of evidence that were asked for.
        known: of the family that the file claims to belong to.
        content: what the file holds in place of a network.
        partly: matrices were sampled, not read whole.
        several: networks of the file have verdicts that differ, and none of them is the file's.
    """
    if several:
        declared = checkpoint.graph is not None or checkpoint.config is not None or known is not None
        own = "take the verdict on the network that you ask for: each has one of its own"
        return [own] if declared else [own, _CONFIG]
    if content is not None:
        return ["name the file that holds the network itself"]
    return list(_steps(checkpoint, anatomy, kinds, known, partly))


def _steps(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    kinds: Collection[EvidenceKind],
    known: families.Fact | None,
    partly: bool,
) -> Iterator[str]:
    if _is_empty(checkpoint):
        yield "gather the weights first, for example with DeepSpeed's zero_to_fp32.py"
        return
    if "declared" not in kinds or "layout" not in kinds:
        yield "use all kinds of evidence: leave --evidence out"
    if checkpoint.graph is None and checkpoint.config is None and known is None:
        yield _CONFIG
    elif checkpoint.graph is None and known is None:
        yield "add a row for this architecture to the families (docs/extending.md), if its norm is known"
    if "kernel" not in kinds:
        yield "let the weights speak: add --evidence kernel"
    elif partly and anatomy.matrices:
        yield "read every matrix whole: --full"
    operators = [one.where for one in anatomy.unexplained if one.what == "operator"]
    if operators:
        yield f"export the graph without {operators[0][:80]}"
    elif anatomy.unexplained:
        yield f"say what {anatomy.unexplained[0].where[:80]} is, in an issue, so that it is recognised"
