"""What a model holds, as one short number: two uploads with the same number need one answer only.

Fine-tunes of one model share its header and most of its bytes, and their labels may differ, so a header is not enough
and a few blocks of a large file are not either: what was trained may be its norms alone. The number covers

- the size of every file of the model (shards, index, configuration), and small files whole;
- the header (its SHA-256 as parsed) and every tensor's name, type and shape;
- every tensor of up to 64 KiB whole, which takes in every scale and shift up to d = 16,384 in F32;
- three blocks of 4 KiB of every larger tensor: its begin, its middle and its end.

What it does not see is an edit of a few weights inside a large tensor. Training leaves no such edits, people can.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..checkpoint import Checkpoint, TensorInfo
from ..errors import NormsniffError
from ..inputs.opening import opened
from ..limits import Limits
from ..source.views import Extent

_SMALL_FILE = 1 << 20
_SMALL_TENSOR = 1 << 16
_BLOCK = 1 << 12
_EDGE = 16  # elements along each axis of a tensor that only a library can slice: 16² F64 are half a block


def content_id(source: str | Path, limits: Limits | None = None) -> bytes | None:
    """Return 16 bytes that identify what a local model holds, as `content_of`; None for a URI, whose bytes are dear.

    Reads the header, and at most 64 KiB of every tensor.

    Raises:
        NormsniffError: as `sniff` does.
    """
    if isinstance(source, str) and "://" in source:
        return None
    with opened(source, limits) as checkpoint:
        return content_of(checkpoint)


def content_of(checkpoint: Checkpoint) -> bytes | None:
    """Return 16 bytes that identify what an open model holds; None if they cannot be had.

    A label reads other bytes, and fewer: what is damaged, or too dear, here may have one, and is no other model's copy.
    """
    try:
        return _digest(checkpoint)
    except NormsniffError:
        return None


def _digest(checkpoint: Checkpoint) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((checkpoint.format, checkpoint.version, checkpoint.header_sha256)).encode())
    for source in checkpoint.sources:
        digest.update(source.size.to_bytes(8, "little"))
        if source.size <= _SMALL_FILE:
            digest.update(source.read_at(0, source.size))
    for tensor in checkpoint.tensors.values():
        digest.update(repr((tensor.name, tensor.dtype, tensor.shape)).encode())
        for piece in _pieces(tensor):
            digest.update(piece)
    return digest.digest()


def _pieces(tensor: TensorInfo) -> list[memoryview | bytes]:
    storage = tensor.storage
    if isinstance(storage, Extent):
        size = storage.stop - storage.start
        if size <= _SMALL_TENSOR:
            return [storage.source.read_at(storage.start, size)]
        starts = (storage.start, storage.start + (size - _BLOCK) // 2, storage.stop - _BLOCK)
        return [storage.source.read_at(start, _BLOCK) for start in starts]
    if tensor.nbytes <= _SMALL_TENSOR:
        return [storage.read(tuple(slice(0, n) for n in tensor.shape)).tobytes()]
    first = tuple(slice(0, min(n, _EDGE)) for n in tensor.shape)
    last = tuple(slice(max(0, n - _EDGE), n) for n in tensor.shape)
    return [storage.read(index).tobytes() for index in (first, last)]
