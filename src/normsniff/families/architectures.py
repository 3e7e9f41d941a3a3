"""Names of architectures: of GGUF, which llama.cpp fixes in code, and of classes, through its converters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from ..record import Label
from .facts import MAIN_TOWERS, Fact, from_family, from_row, label_of
from .tables import data, plugged_in, rules

_GATED = ("ssm_norm",)  # llama.cpp's name of the gated norm of linear attention, which stores γ in all families
_ADDS_ONE = re.compile(r"\+1(\.0)? (on (every )?\*norm|as qwen3next|\(inherits)|as qwen35")
_TASK = re.compile(r"([A-Z]\w*?)(?:Text|LMHead)?(?:Model|For[A-Z][A-Za-z]*)")
"""Names of classes of transformers: a backbone and its task."""
_LONGEST_CLASS = 200  # characters: the pattern takes the square of them, and the longest known has 40


def gguf_architecture(arch: str, metadata: Mapping[str, Any]) -> Fact | None:
    """The fact about ``general.architecture``, which llama.cpp fixes in code.

    Args:
        arch: its value.
        metadata: the file's keys, for the few architectures where a key decides.
    """
    row = data().gguf.get(arch)
    if row is None:
        return from_family(arch, plugged_in()[arch]) if arch in plugged_in() else None
    if row.norm == "by-projector":
        return _projectors(metadata)
    norm: Label = "undetermined"
    if row.norm == "by-key":
        norm = "RMSNorm" if f"{arch}.attention.layer_norm_rms_epsilon" in metadata else "LayerNorm"
    else:
        norm = label_of(row.norm)
    fact = from_row(arch, row, norm, data().gguf_source, data().gguf_date)
    fact = msgspec.structs.replace(fact, language_only=True)  # ollama puts the vision tower into the same file
    if _ADDS_ONE.match(fact.baked):
        fact = msgspec.structs.replace(fact, plain=_GATED)
    for dispute in rules().disputed:
        if arch in dispute.gguf:
            fact = msgspec.structs.replace(fact, disputed=dispute.label, note=f"{dispute.note} ({dispute.source})")
    return fact


def projector(kind: str, metadata: Mapping[str, Any]) -> Fact | None:
    """The fact about the tower of an mmproj file whose projector type is `kind`."""
    row = data().projectors.get(kind)
    if row is None:
        return None
    norm = label_of(row.norm)
    if row.norm == "by-size":  # InternViT-6B is the one RMSNorm tower of its family
        size = (metadata.get("clip.vision.embedding_length"), metadata.get("clip.vision.block_count"))
        norm = "RMSNorm" if size == (3200, 45) else "LayerNorm"
    return from_row(kind, row, norm, data().gguf_source, data().gguf_date)


def _projectors(metadata: Mapping[str, Any]) -> Fact | None:
    """An mmproj file has a vision tower, an audio tower or both, each with its projector type."""
    common = metadata.get("clip.projector_type")
    towers: dict[str, Fact] = {}
    for tower in ("vision", "audio"):
        kind = metadata.get(f"clip.{tower}.projector_type")
        if kind is None and metadata.get(f"clip.has_{tower}_encoder") is True:
            kind = common
        fact = projector(kind, metadata) if isinstance(kind, str) else None
        if fact is not None:
            towers[tower] = fact
    if not towers:
        return projector(common, metadata) if isinstance(common, str) else None
    main = next(iter(towers.values()))
    return msgspec.structs.replace(main, components={tower: fact.norm for tower, fact in towers.items()}).with_main()


def hf_class(name: str) -> Fact | None:
    """The fact about a Hugging Face class such as ``LlamaForCausalLM``, through llama.cpp's converters.

    Classes of one stem have one backbone, with a head for each task: what is known of ``RobertaModel`` holds for
    ``RobertaForCausalLM``.
    """
    arch = data().hf_classes.get(name) or _backbones().get(_stem(name) or "")
    fact = gguf_architecture(arch, {}) if arch is not None else None
    if fact is None or fact.disputed is not None or fact.norm == "undetermined":
        return None
    return as_original(name, fact)


def _stem(name: str) -> str | None:
    """Return a class's name without its task; None where it is not named so."""
    match = _TASK.fullmatch(name) if len(name) <= _LONGEST_CLASS else None
    return None if match is None else match[1]


@cache
def _backbones() -> Mapping[str, str]:
    """Return the architectures by the stems of their classes, where all of a stem agree."""
    found: dict[str, set[str]] = {}
    for name, arch in data().hf_classes.items():
        if (stem := _stem(name)) is not None:
            found.setdefault(stem, set()).add(arch)
    return {stem: next(iter(archs)) for stem, archs in found.items() if len(archs) == 1}


def as_original(name: str, fact: Fact) -> Fact:
    """A llama.cpp fact, said of the original model: where the converter adds 1, the original stores γ - 1."""
    note = fact.note and f"from llama.cpp: {fact.note}"
    if _ADDS_ONE.match(fact.baked):
        plain, towers = ("linear_attn.norm",), MAIN_TOWERS  # as `_GATED` is called there
        return msgspec.structs.replace(fact, name=name, baked="", note=note, zero=("*",), plain=plain, zero_in=towers)
    return msgspec.structs.replace(fact, name=name, baked="", note=note)
