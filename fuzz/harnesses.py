"""The table of formats: what is mutated, and how."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

from tests.helpers import hdf5_files

from . import fields, seeds
from .containers import members, pickle, tar
from .fields import numbers
from .mutations import Mutation, plain, protobuf
from .seeds import Tree
from .texts import digits, json_head, json_text, lines, xml

LARGEST = 1_000_000  # bytes of a mutated file: what one of a megabyte may cost is promised


class Harness(NamedTuple):
    """How a format is fuzzed.

    Attributes:
        seeds: makes the files to begin with.
        mutations: by the ending of a file's name, taken by chance; files of a tree with other endings stay.
    """

    seeds: Callable[[], list[Tree]]
    mutations: Mapping[str, tuple[Mutation, ...]]


def hdf5(data: bytes, rng: random.Random) -> bytes:
    """Change the structure of an HDF5 file: addresses that lead elsewhere, counts at their ends, nodes over others."""
    return hdf5_files.changed(rng, data) if len(data) > 8 else plain(data, rng)


_ZIP = numbers(fields.archive)
_NPY = {".npy": digits}
_PICKLES = members({".pkl": pickle})
_KERAS = members({".json": json_text, ".h5": hdf5})

HARNESSES = {
    "safetensors": Harness(
        lambda: [{"m.safetensors": seeds.safetensors_bytes(seeds.arrays())}, *seeds.fixtures("*-none.safetensors")],
        {"": (plain, json_head, json_head, numbers(fields.safetensors))},
    ),
    "gguf": Harness(
        lambda: [{"m.gguf": seeds.gguf_bytes(kind)} for kind in ("llama", "gpt2", "x")] + seeds.fixtures("*.Q4_K.gguf"),
        {"": (plain, numbers(fields.gguf), numbers(fields.gguf), numbers(fields.gguf))},
    ),
    "ggml": Harness(seeds.ggml, {"": (plain, numbers(fields.ggml), numbers(fields.ggml))}),
    "onnx": Harness(seeds.onnx, {"": (plain, protobuf, protobuf, protobuf)}),
    "hdf5": Harness(seeds.hdf5, {"": (plain, hdf5, hdf5, hdf5)}),
    "keras": Harness(seeds.keras, {"": (plain, _KERAS, _KERAS, _ZIP)}),
    "pytorch": Harness(
        lambda: [
            {"m.bin": write(seeds.arrays(kind, layers=1))}
            for write in (seeds.torch_archive, seeds.torch_stream)
            for kind in ("rms", "ln")
        ],
        {"": (plain, _PICKLES, _PICKLES, pickle, _ZIP)},
    ),
    "dcp": Harness(seeds.distributed, {".metadata": (plain, pickle, pickle), ".distcp": (plain, _PICKLES, _ZIP)}),
    "numpy": Harness(seeds.numpy_files, {"": (plain, members(_NPY), members({".npy": numbers(fields.npy)}), _ZIP)}),
    "flax": Harness(seeds.flax, {"": (plain, numbers(fields.msgpack), numbers(fields.msgpack))}),
    "tflite": Harness(seeds.tflite, {"": (plain, numbers(fields.flatbuffer), numbers(fields.flatbuffer))}),
    "openvino": Harness(
        lambda: [seeds.openvino(kind) for kind in ("RMS", "LayerNorm", "plain")],
        {".xml": (plain, xml, xml, xml, digits), ".bin": (plain,)},
    ),
    "ctranslate2": Harness(
        seeds.ctranslate2, {".bin": (plain, numbers(fields.ctranslate2), numbers(fields.ctranslate2))}
    ),
    "tar": Harness(
        lambda: [{"m.nemo": seeds.nemo()}],
        {"": (plain, tar({".yaml": lines, ".ckpt": _PICKLES}), tar({".yaml": lines}))},
    ),
    "shards": Harness(seeds.sharded, {".index.json": (json_text, json_text, json_text, plain)}),
    "configs": Harness(seeds.configured, {".json": (json_text, json_text, json_text, plain)}),
}
"""The harnesses by name of the format."""


@cache
def corpus(name: str) -> list[Tree]:
    """Return the trees that a format is mutated from; none if what writes them is not installed."""
    return HARNESSES[name].seeds()


def mutated(name: str, rng: random.Random) -> tuple[Tree, dict[str, bytes]]:
    """Return a tree of the corpus, and what is to take the place of files in it."""
    tree = rng.choice(corpus(name))
    changed: dict[str, bytes] = {}
    for _ in range(rng.choice((1, 1, 1, 1, 1, 1, 2, 3))):  # what walks a file for a second one has no walk of it kept
        changed_once(name, tree, changed, rng)
    return tree, changed


def changed_once(name: str, tree: Tree, changed: dict[str, bytes], rng: random.Random) -> None:
    """Mutate a file of a tree, or what has taken its place before."""
    choices = [
        (file, ways) for file in tree for ending, ways in HARNESSES[name].mutations.items() if file.endswith(ending)
    ]
    file, ways = rng.choice(choices)
    changed[file] = rng.choice(ways)(changed.get(file, tree[file]), rng)[:LARGEST]
