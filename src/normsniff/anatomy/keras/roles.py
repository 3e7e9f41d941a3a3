"""What a Keras variable is to the residual stream, and along which of its axes the stream runs. One row a form.

Kernels are stored (in, out); attention of Keras keeps its heads apart: (in, heads, size) and (heads, size, out).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ..parts import MatrixRole

# ends of variable paths, where neither class, shape nor graph tell the role (attention of Keras, KerasHub and of
# the TensorFlow models of transformers)
_READERS = re.compile(
    r"(^|/)_?(query|key|value|(query|key|value)_projector|[qkv]_proj|c_attn|qkv|in_proj|gate_proj|up_proj|fc1|c_fc"
    r"|intermediate|feedforward_(gate|intermediate|gating)\w*)(_dense|_layer)?(/dense)?$"
)
_WRITERS = re.compile(
    r"(^|/)_?((attention_)?output_dense|attention_output|attention/output/dense|output/dense|o_proj|out_proj|c_proj"
    r"|output_projector|down_proj|fc2|feedforward_output\w*)$"
)
_POSITION = re.compile(r"pos(ition)?|patch")
_HEAD = re.compile(r"(^|[/_])(logits|head|unembedding|classifier|predictions)([/_]|$)")
_KERNELS = ("0", "kernel", "weight")
_TRANSPOSED_TABLES = ("1", "reverse_embeddings")  # ReversibleEmbedding


class Variable(msgspec.Struct, frozen=True):
    """A stored weight with an axis as long as the stream is wide, and what is around it.

    Attributes:
        path: of its layer.
        leaf: its own name.
        shape: at least two axes.
        d: width of the stream.
        embedding: its layer looks vectors up.
        convolution: its layer is a convolution.
        after_norm: its layer reads a norm.
        into_sum: what its layer puts out is added to something.
    """

    path: str
    leaf: str
    shape: tuple[int, ...]
    d: int
    embedding: bool
    convolution: bool
    after_norm: bool
    into_sum: bool

    @property
    def last(self) -> int:
        """The axis of outputs."""
        return len(self.shape) - 1

    @property
    def inner(self) -> int:
        """The axis of inputs."""
        return 0 if len(self.shape) < 4 and not self.convolution else self.last - 1

    @property
    def reads(self) -> bool:
        """Whether the axis of inputs may be the stream."""
        return self.shape[self.inner] == self.d

    @property
    def writes(self) -> bool:
        """Whether the axis of outputs may be the stream."""
        return self.shape[self.last] == self.d

    @property
    def is_kernel(self) -> bool:
        """Whether it is the matrix of its layer; with four axes, those in front must be trivial."""
        return self.leaf in _KERNELS and (len(self.shape) <= 3 or max(self.shape[:-2]) <= 1)

    @property
    def only(self) -> int | None:
        """The axis of length d, if a kernel has one only."""
        return self.shape.index(self.d) if self.shape.count(self.d) == 1 and self.leaf in _KERNELS else None

    @property
    def head_axis(self) -> int:
        """The axis of inputs of a reader by name: Gemma stacks heads first, (heads, d, size)."""
        return self.inner if self.reads else self.last - 1


class RoleRow(NamedTuple):
    """A form: what tells it, the role, and the axis along the stream, None where that is not certain."""

    form: str
    fits: Callable[[Variable], bool]
    role: MatrixRole
    axis: Callable[[Variable], int | None]


def _is_transposed_table(v: Variable) -> bool:
    return v.embedding and len(v.shape) == 2 and v.leaf in _TRANSPOSED_TABLES and v.shape[0] == v.d


def _is_position(v: Variable) -> bool:
    return v.embedding and _POSITION.search(v.path.lower()) is not None


def _reads_by_name(v: Variable) -> bool:
    return _READERS.search(v.path) is not None and v.shape[v.head_axis] == v.d


def _reads_by_place(v: Variable) -> bool:
    return v.reads and (not v.writes or v.after_norm) and (v.after_norm or v.shape[v.last] > v.d)


def _writes_by_place(v: Variable) -> bool:
    return v.writes and (not v.reads or v.into_sum) and (v.into_sum or v.shape[v.inner] > v.d)


ROLES = (  # the first that fits
    RoleRow("table of a reversible embedding", _is_transposed_table, "unembedding", lambda _: 0),
    RoleRow("table of another width", lambda v: v.embedding and not v.writes, "unknown", lambda _: None),
    RoleRow("positions", _is_position, "position", lambda v: v.last),
    RoleRow("embedding", lambda v: v.embedding, "embedding", lambda v: v.last),
    RoleRow("no kernel", lambda v: not v.is_kernel, "unknown", lambda v: v.only),
    RoleRow("named as a writer", lambda v: bool(_WRITERS.search(v.path)) and v.writes, "writer", lambda v: v.last),
    RoleRow("named as a reader", _reads_by_name, "reader", lambda v: v.head_axis),
    RoleRow("head", lambda v: bool(_HEAD.search(v.path)) and v.reads, "unembedding", lambda v: v.inner),
    RoleRow("behind a norm, or wider than the stream", _reads_by_place, "reader", lambda v: v.inner),
    RoleRow("into a sum, or from something wider", _writes_by_place, "writer", lambda v: v.last),
    RoleRow("anything else", lambda _: True, "unknown", lambda v: v.only),
)


def role_of(variable: Variable) -> tuple[MatrixRole, int | None]:
    """Return the role of a weight and its axis along the stream; None where that axis is not certain."""
    row = next(row for row in ROLES if row.fits(variable))
    return row.role, row.axis(variable)
