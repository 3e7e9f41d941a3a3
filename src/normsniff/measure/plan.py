"""What a label would read, said before it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import msgspec

from ..anatomy.parts import MatrixRole
from ..checkpoint import TensorInfo
from ..decode.blocks import Strips
from ..record import Written
from ..source.local import ByteSource
from .samples import Sample, whole


class Range(msgspec.Struct, frozen=True):
    """Byte ranges of one file.

    Attributes:
        file: its name.
        offset: of the first byte.
        length: bytes.
        stride: from the start of one to the start of the next, where there are several.
        count: how many.
    """

    file: str
    offset: int
    length: int
    stride: int = 0
    count: int = 1


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to read.

    Attributes:
        what: ``header`` (already read, to make the plan), ``scales`` (scales and shifts together) or ``matrix``.
        batch: 0 for what is always read; after every batch from 1 on the verdict may be certain enough to stop.
        tensor: name of the matrix.
        role: of the matrix.
        component: of the matrix.
        layer: of the matrix.
        vectors: how many are sampled of the matrix.
        bytes: to read.
        ranges: where they are; none where only a library can find them (compressed or chunked arrays).
    """

    what: Literal["header", "scales", "matrix"]
    batch: int = 0
    tensor: str | None = None
    role: MatrixRole | None = None
    component: str | None = None
    layer: int | None = None
    vectors: int | None = None
    bytes: int
    ranges: list[Range] = []


class Plan(Written, frozen=True, kw_only=True, eq=False):
    """What `normsniff.sniff` would read of a model, in order.

    Attributes:
        path: the input as given, or None for bytes and arrays.
        format: of the container.
        file_size: bytes of all files of the model; None for arrays.
        least_bytes: read at least: header, scales and the first batch of matrices, or of a dear one a glance, which is
            enough where nothing was learned.
        most_bytes: read at most: all steps.
        steps: what is read; reading stops after a batch of matrices when the verdict is certain, and where there is
            nothing to find.
        notes: what is left out, and why.
    """

    _shown: ClassVar = ("path", "format", "least_bytes", "most_bytes")

    path: str | None
    format: str
    file_size: int | None
    least_bytes: int
    most_bytes: int
    steps: list[Step]
    notes: list[str]


def steps(header: int, vectors: Sequence[TensorInfo], batches: Sequence[Sequence[Sample]]) -> Iterator[Step]:
    """Yield the steps of a plan.

    Args:
        header: bytes of the header, which is read already.
        vectors: scales and shifts that will be read.
        batches: of `select`.
    """
    yield Step(what="header", bytes=header)
    pieces = whole(vectors)
    yield Step(what="scales", bytes=sum(tensor.nbytes for tensor in vectors), ranges=_ranges(pieces))
    for number, batch in enumerate(batches, 1):
        for sample in batch:
            matrix = sample.matrix
            yield Step(
                what="matrix", batch=number, tensor=matrix.tensor.name, role=matrix.role, component=matrix.component,
                layer=matrix.layer, vectors=sum(block.n for _, block in sample.blocks()), bytes=sample.nbytes,
                ranges=_ranges(sample.strips),
            )  # fmt: skip


def _ranges(pieces: Sequence[tuple[ByteSource, Strips]]) -> list[Range]:
    return [
        Range(source.name, at.start, at.length, at.stride if at.n > 1 else 0, at.n)
        for source, at in pieces
    ]  # fmt: skip
