"""A case: the header of a model whose norm is known, as a real file with nothing but zeros for weights."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]
Value = str | int | float | bool

_ALIGNMENT = 32


@dataclass(frozen=True)
class Case:
    """One file to sniff, and the truth.

    Attributes:
        name: architecture, projector or model type.
        group: what it is tabled under: ``GGUF``, ``GGUF projectors``, ``transformers``.
        variant: the evidence that the file offers, in words.
        label: the truth for the main residual stream.
        components: the truth for each tower, where it is known.
        tensors: name to shape, in numpy's order.
        metadata: GGUF keys.
        config: what config.json says; None for no such file.
    """

    name: str
    group: str
    variant: str
    label: str
    components: Mapping[str, str]
    tensors: Shapes
    metadata: Mapping[str, Value] = field(default_factory=dict)
    config: Mapping[str, object] | None = None

    def numbered(self) -> Case:
        """The same tensors under names that say nothing, and no configuration."""
        tensors = {str(number): shape for number, shape in enumerate(self.tensors.values())}
        return replace(self, variant="names replaced by numbers", tensors=tensors, config=None)

    def write(self, directory: Path) -> Path:
        """Write the model into an empty directory; return what to sniff."""
        if self.config is not None:
            (directory / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
        if self.group.startswith("GGUF"):
            path = directory / "model.gguf"
            _write(path, gguf_header(self.tensors, self.metadata), self.tensors)
        else:
            path = directory / "model.safetensors"
            _write(path, safetensors_header(self.tensors), self.tensors)
        return path


def _write(path: Path, header: bytes, tensors: Shapes) -> None:
    """Write the header, then as many zeros as the weights take: a hole in the file, so that none is stored."""
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(_stored(shape) for shape in tensors.values()))


def _stored(shape: tuple[int, ...]) -> int:
    """Bytes of a F32 tensor, rounded up so that the next one is aligned."""
    return -(-4 * math.prod(shape) // _ALIGNMENT) * _ALIGNMENT


def safetensors_header(tensors: Shapes) -> bytes:
    """Make a safetensors header; every tensor is F32, and bytes that align the next one are a tensor of their own."""
    entries: dict[str, object] = {}
    at = 0
    for name, shape in tensors.items():
        size = 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
        if filler := _stored(shape) - size:  # the format knows no gaps
            entries[f"filler.{at}"] = {"dtype": "U8", "shape": [filler], "data_offsets": [at, at + filler]}
            at += filler
    text = json.dumps(entries, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text


def gguf_header(tensors: Shapes, metadata: Mapping[str, Value]) -> bytes:
    """Make a GGUF header; every tensor is F32."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _value(value)]
    at = 0
    for name, shape in tensors.items():
        parts += [_text(name), struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), 0, at)]
        at += _stored(shape)
    header = b"".join(parts)
    return header + b"\0" * (-len(header) % _ALIGNMENT)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    return struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<I", 8) + _text(value)
