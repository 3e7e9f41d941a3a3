"""What to read of a model's matrices, in which order, and what it costs: decided before a byte of them is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, zip_longest

from .. import decode
from ..anatomy.parts import Anatomy, Matrix, MatrixRole
from ..checkpoint import TensorInfo
from ..decode.blocks import Block, Strips
from ..dtypes import UNITS
from ..errors import BudgetSpent, FormatError, LimitExceeded
from ..limits import Limits
from ..source.local import ByteSource
from ..source.views import Extent

DEFAULT_BUDGET = 32_000_000
"""Bytes of matrices read at most by default: a quarter of a percent of a 7-billion-parameter model in BF16."""

VECTORS, _FEWEST_VECTORS = 256, 128
"""Vectors sampled of a matrix, and of one so wide that they would take `_SAMPLE_BYTES`: independent ones give ρ a
relative standard error of sqrt(2/256) = 9 % or sqrt(2/128) = 12 %. The features allow for 30 % between matrices."""

_SAMPLE_BYTES = 1 << 21
_LEAST_BYTES = 1 << 17
"""A sample is not smaller than this: finding the place costs as much as reading it."""

_BATCHES: Mapping[MatrixRole, tuple[int, ...]] = {
    "writer": (4, 4, 4), "reader": (4, 2, 2), "unknown": (8, 8, 8), "embedding": (1,), "unembedding": (1,),
    "position": (0, 0, 1),
}  # fmt: skip
"""Matrices of a component in each batch. ln ρ scatters by 0.04 between the writers of SmolLM2 and by 0.4 between those
of MiniLM, so that the mean over 12 has a standard error of at most 0.12, a tenth of the distance between the norms;
the mean over the 4 of the first batch one of at most 0.2. After every batch the verdict may be certain enough."""

_EITHER = (4, 4, 4)
"""Square matrices of unknown axis in each batch, beside the others: each costs two samples, and may say nothing."""

_GLANCE: Mapping[MatrixRole, int] = {"writer": 2, "reader": 1, "unknown": 3, "embedding": 1}
_GLANCE_FROM = 1 << 22
"""What of the first batch is read first where all of it would cost more than this, to see whether there is anything to
find (`evidence.kernel.is_quiet`). One writer less, or no embedding, and the rule would have silenced answers on the
seen half of the calibration corpus."""

_WHOLE_AHEAD = 1 << 26
"""Largest matrix that is fetched ahead as a whole; of a larger one the blocks are fetched when their turn comes."""


@dataclass(frozen=True)
class Sample:
    """What to read of one matrix; where that lies is worked out once.

    Attributes:
        matrix: the matrix.
        count: how many vectors to sample, or None for all.
        limits: caps on what is decoded at once.
    """

    matrix: Matrix
    count: int | None
    limits: Limits

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which vectors are sampled: both of a square matrix that no name places."""
        return (0, 1) if self.matrix.either else (self.matrix.axis,)

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Yield the blocks to read, each with the axis along which its vectors run."""
        for axis in self.axes:
            for block in decode.blocks(self.matrix.tensor, axis, self.limits, self.count):
                yield axis, block

    @cached_property
    def strips(self) -> list[tuple[ByteSource, Strips]]:
        """The byte ranges that reading it takes, as its sources like them; none for what is no byte range."""
        tensor = self.matrix.tensor
        extras = [*_parameters(tensor), *([] if self.matrix.bias is None else [self.matrix.bias])]
        found = [piece for extra in extras for piece in _whole(extra)]
        if self.count is None:
            return found + _whole(tensor)
        for axis, block in self.blocks():
            where = decode.strips(tensor, axis, block)
            if where is not None and isinstance(tensor.storage, Extent):
                found.append((tensor.storage.source, where.joined(tensor.storage.source.gap)))
        return found

    @cached_property
    def nbytes(self) -> int:
        """Bytes to read; for what is no byte range those of the elements."""
        tensor, bias = self.matrix.tensor, self.matrix.bias
        extra = 0 if bias is None else bias.nbytes
        if self.count is None:
            return tensor.nbytes + extra
        if not isinstance(tensor.storage, Extent):
            elements, unit = UNITS.get(tensor.dtype, (1, 1))
            vectors = sum(block.n for _, block in self.blocks())
            return vectors * tensor.shape[self.matrix.axis] * unit // elements + extra
        return sum(where.nbytes for _, where in self.strips)


def select(
    anatomy: Anatomy, budget: int | None, limits: Limits, vectors: int | None = None
) -> tuple[list[list[Sample]], list[str]]:
    """Return what to read of the matrices, in batches, and notes on what the budget does not allow.

    Within a batch what costs least comes first, and every prefix of the batches is a fair sample: all roles, all
    shapes, layers spread over the depth.

    Args:
        anatomy: the matrices.
        budget: bytes to read at most; None for every matrix whole.
        limits: caps on what is decoded at once.
        vectors: vectors to sample of every matrix, if not `VECTORS`.
    """
    groups: dict[tuple[str, MatrixRole, bool], list[Matrix]] = {}
    for matrix in anatomy.matrices:
        if decode.is_decodable(matrix.tensor.dtype):
            groups.setdefault((matrix.component, matrix.role, matrix.either), []).append(matrix)
    if budget is None:
        return [[Sample(matrix, None, limits)] for members in groups.values() for matrix in _spread(members)], []
    notes: list[str] = []
    batches, left, refused = [], budget, 0
    queues = [
        (iter(_spread(members)), _EITHER if either else _BATCHES[role]) for (_, role, either), members in groups.items()
    ]
    for sizes in zip_longest(*(sizes for _, sizes in queues), fillvalue=0):
        taken = [m for (queue, _), size in zip(queues, sizes, strict=True) for m in islice(queue, size)]
        batch = []
        for cost, sample in sorted(_priced(taken, limits, vectors, notes), key=lambda pair: pair[0]):
            if cost <= left:
                batch.append(sample)
                left -= cost
            else:
                refused = min(refused or cost, cost)
        batches.append(batch)
    if refused and not any(batches):
        notes.append(f"the budget of {budget:,} bytes is too small for one matrix sample ({refused:,} bytes)")
    return [batch for batch in batches if batch], notes


def parted(batches: Sequence[Sequence[Sample]]) -> list[list[Sample]]:
    """Return the batches; a glance at all roles of a dear first one comes before the rest, as a batch of its own."""
    if not batches or sum(sample.nbytes for sample in batches[0]) <= _GLANCE_FROM:
        return [list(batch) for batch in batches]
    glance: list[Sample] = []
    rest: list[Sample] = []
    seen: Counter[tuple[str, MatrixRole]] = Counter()
    for sample in batches[0]:
        key = sample.matrix.component, sample.matrix.role
        seen[key] += 1
        (glance if seen[key] <= _GLANCE.get(key[1], 0) else rest).append(sample)
    return [one for one in (glance, rest) if one] + [list(batch) for batch in batches[1:]]


def prefetch(pieces: Sequence[tuple[ByteSource, Strips]]) -> None:
    """Tell the sources what will be read soon."""
    by_source: dict[int, tuple[ByteSource, list[tuple[int, int]]]] = {}
    for source, where in pieces:
        ranges = by_source.setdefault(id(source), (source, []))[1]
        ranges += [(where.start + i * where.stride, where.length) for i in range(where.n)]
    for source, ranges in by_source.values():
        source.prefetch(ranges)


def ahead(samples: Sequence[Sample]) -> list[tuple[ByteSource, Strips]]:
    """Return what to fetch before the samples are read."""
    return [piece for sample in samples if sample.nbytes <= _WHOLE_AHEAD for piece in sample.strips]


def whole(tensors: Sequence[TensorInfo]) -> list[tuple[ByteSource, Strips]]:
    """Return the byte ranges of whole tensors."""
    return [piece for tensor in tensors for one in (tensor, *_parameters(tensor)) for piece in _whole(one)]


def _whole(tensor: TensorInfo) -> list[tuple[ByteSource, Strips]]:
    if not isinstance(tensor.storage, Extent):
        return []
    return [(tensor.storage.source, Strips(tensor.storage.start, tensor.nbytes, tensor.nbytes, 1))]


def _parameters(tensor: TensorInfo) -> list[TensorInfo]:
    """Return the scales and zero points that decoding a quantised tensor takes."""
    affine = tensor.affine
    return [] if affine is None else [one for one in (affine.scale, affine.zero_point) if one is not None]


def _priced(
    matrices: Sequence[Matrix], limits: Limits, vectors: int | None, notes: list[str]
) -> Iterator[tuple[int, Sample]]:
    for matrix in matrices:
        try:
            sample = Sample(matrix, vectors or _count(matrix), limits)
            yield sample.nbytes, sample
        except BudgetSpent:
            raise
        except (FormatError, LimitExceeded) as error:
            notes.append(f"not sampled: {error}")


def _count(matrix: Matrix) -> int:
    elements, unit = UNITS.get(matrix.tensor.dtype, (1, 1))
    vector = max(1, matrix.tensor.shape[matrix.axis] * unit // elements)
    return max(_LEAST_BYTES // vector, min(VECTORS, max(_SAMPLE_BYTES // vector, _FEWEST_VECTORS)))


def _spread(members: Sequence[Matrix]) -> list[Matrix]:
    """Order matrices so that every prefix has all shapes in proportion, and layers spread over the depth."""
    shapes: dict[tuple[tuple[int, ...], int], list[Matrix]] = {}
    for matrix in members:
        shapes.setdefault((matrix.tensor.shape, matrix.axis), []).append(matrix)
    placed = []
    for same in shapes.values():
        placed += [((at + 0.5) / len(same), same[i]) for at, i in enumerate(decode.spread(len(same)))]
    return [matrix for _, matrix in sorted(placed, key=lambda pair: pair[0])]
