"""Small trained-looking models in the formats that no fixture has, for faults to be put into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import ctranslate2_files, flax_files, openvino_files, tflite_files, torch_files
from .faults import llama

BLOCKS = 4


def pytorch(folder: Path, *, legacy: bool = False) -> Path:
    """A state dict as `torch.save` writes it, in either of its two files."""
    state = llama(blocks=BLOCKS)
    data = {str(i): np.ascontiguousarray(v, np.float32).tobytes() for i, v in enumerate(state.values())}
    entries = {
        name: torch_files.tensor(str(i), v.shape, _strides(v.shape), count=v.size)
        for i, (name, v) in enumerate(state.items())
    }
    path = folder / "model.bin"
    storages = {key: (len(one) // 4, one) for key, one in data.items()}
    path.write_bytes(torch_files.stream(entries, storages) if legacy else torch_files.archive(entries, data))
    return path


def flax(folder: Path) -> Path:
    """A tree of arrays in msgpack."""
    tree: dict[str, Any] = {}
    for name, value in llama(blocks=BLOCKS).items():
        parts = name.removesuffix(".weight").split(".")
        at = tree
        for part in parts:
            at = at.setdefault(part, {})
        kind = {"norm": "scale", "tokens": "embedding"}.get(parts[-1].rpartition("_")[2], "kernel")
        is_scale = "norm" in parts[-1]
        at["scale" if is_scale else kind] = np.ascontiguousarray(value.T, np.float32)
    path = folder / "flax_model.msgpack"
    path.write_bytes(flax_files.tree({"params": tree}))
    return path


def ctranslate2(folder: Path) -> Path:
    """A decoder without shifts."""
    path = folder / "model.bin"
    path.write_bytes(ctranslate2_files.model(ctranslate2_files.decoder(shift=False, layers=BLOCKS)))
    return path


def openvino(folder: Path) -> Path:
    """A decomposed RMSNorm before every MLP."""
    return openvino_files.transformer("RMSNorm", blocks=BLOCKS).write(folder / "model.xml")


def tflite(folder: Path) -> Path:
    """LayerNorm as TensorFlow's converter folds it."""
    path = folder / "model.tflite"
    path.write_bytes(tflite_files.flatbuffer(tflite_files.transformer("LayerNorm", blocks=BLOCKS)))
    return path


CARRIERS: Mapping[str, Callable[[Path], Path]] = {
    "PyTorch": pytorch,
    "PyTorch, legacy": lambda folder: pytorch(folder, legacy=True),
    "Flax": flax,
    "CTranslate2": ctranslate2,
    "OpenVINO": openvino,
    "TFLite": tflite,
}


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
