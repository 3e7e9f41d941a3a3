"""dtype: norms that are quantised, below 16 bits, of several types, or of another type than the runtime expects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..checkpoint import TensorInfo
from ..dtypes import FLOATS
from ..record import Finding
from ..words import among, amount, are
from .subject import VECTORS, ReadNorm, Subject


def find(subject: Subject) -> Iterator[Finding]:
    """Yield what the stored types of scales and shifts show."""
    for component in dict.fromkeys(one.site.component for one in subject.norms):
        stored = [(one, t) for one in subject.norms if one.site.component == component for t in _tensors(one)]
        narrow = [(one, t) for one, t in stored if t.dtype not in FLOATS or t.affine is not None]
        if narrow:
            yield Finding(
                code="dtype",
                severity="warning",
                component=component,
                norms=_names(narrow),
                reason=f"{amount(len(narrow), *VECTORS)} {are(len(narrow))} stored as {_types(narrow)}: norms are a"
                " thousandth of a model and are kept in 16 bits or more",
                cure="leave norms out of the quantisation",
            )
        wide = [(one, t) for one, t in stored if t.dtype in FLOATS and t.affine is None]
        if subject.checkpoint.format == "GGUF":
            other = [(one, t) for one, t in wide if t.dtype != "F32"]
            if other:
                yield Finding(
                    code="dtype",
                    severity="warning",
                    component=component,
                    norms=_names(other),
                    reason=f"{amount(len(other), *VECTORS)} {are(len(other))} {_types(other)}; llama.cpp's converter"
                    " writes F32, and some of its backends take nothing else",
                    cure="convert again, or requantise with a current llama-quantize",
                )
            continue
        for group in subject.groups:
            parts = [(one, one.site.scale) for one in group.norms if one.site.scale is not None]
            types = Counter(t.dtype for _, t in parts)
            if group.component != component or len(types) < 2 or not set(types) <= FLOATS:
                continue
            common = types.most_common(1)[0][0]
            odd = [(one, t) for one, t in parts if t.dtype != common]
            yield Finding(
                code="dtype",
                severity="warning",
                component=component,
                norms=_names(odd),
                reason=f"{among(len(odd), len(parts), 'scale')} at {group.place} {are(len(odd))} {_types(odd)},"
                f" the others {common}",
                cure="store all norms of the blocks in one type: loaders may round the odd ones",
            )


def _tensors(one: ReadNorm) -> list[TensorInfo]:
    return [tensor for tensor in (one.site.scale, one.site.shift) if tensor is not None]


def _names(found: list[tuple[ReadNorm, TensorInfo]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.name for one, _ in found))


def _types(found: list[tuple[ReadNorm, TensorInfo]]) -> str:
    return " and ".join(sorted({t.dtype if t.affine is None else f"quantised {t.dtype}" for _, t in found}))
