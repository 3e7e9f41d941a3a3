"""The files that mutations begin with: fixtures that are small enough, and small networks in every format.

A seed is a tree: file name to content, the first one being what is asked about. Of a tree of one file only the bytes
are handed over.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers import (
    ctranslate2_files,
    flax_files,
    ggml_files,
    hdf5_files,
    keras_files,
    onnx_files,
    openvino_files,
    tflite_files,
    torch_files,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"
LARGEST = 280_000  # bytes of a seed: most of a larger file is weights, which changes seldom matter to

Tree = dict[str, bytes]


def arrays(norm: str = "rms", layers: int = 2, d: int = 16) -> dict[str, Any]:
    """Return a small transformer by the names of Llama, or of GPT-2 with shifts."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"model.embed_tokens.weight": rng.normal(size=(40, d))}
    for i in range(layers):
        at = f"model.layers.{i}"
        for part in ("input", "post_attention"):
            found[f"{at}.{part}_layernorm.weight"] = rng.normal(1, 0.1, d)
            if norm == "ln":
                found[f"{at}.{part}_layernorm.bias"] = rng.normal(0, 0.1, d)
        found |= {f"{at}.self_attn.{one}_proj.weight": rng.normal(size=(d, d)) for one in "qkvo"}
        found |= {f"{at}.mlp.{one}_proj.weight": rng.normal(size=(2 * d, d)) for one in ("gate", "up")}
        found[f"{at}.mlp.down_proj.weight"] = rng.normal(size=(d, 2 * d))
    found["model.norm.weight"] = rng.normal(1, 0.1, d)
    return {name: value.astype(np.float32) for name, value in found.items()}


def fixtures(*patterns: str) -> list[Tree]:
    """Return the fixtures of these names that are not too large."""
    paths = [path for pattern in patterns for path in sorted(FIXTURES.glob(pattern))]
    return [{path.name: path.read_bytes()} for path in paths if path.stat().st_size <= LARGEST]


def directory(*names: str) -> Tree:
    """Return a directory of the fixtures as a tree."""
    folder, *files = names
    return {name: (FIXTURES / folder / name).read_bytes() for name in files}


def safetensors_bytes(tensors: Mapping[str, Any]) -> bytes:
    """Return a safetensors file."""
    at, header, data = 0, {}, b""
    for name, value in tensors.items():
        data += value.tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, len(data)]}
        at = len(data)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + data


def gguf_bytes(architecture: str = "llama", layers: int = 2, d: int = 16) -> bytes:
    """Return a GGUF file with keys of several types, an array of words and one of numbers."""
    rng = np.random.default_rng(0)

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    keys = [
        text("general.architecture") + struct.pack("<I", 8) + text(architecture),
        text(f"{architecture}.block_count") + struct.pack("<II", 4, layers),
        text(f"{architecture}.embedding_length") + struct.pack("<II", 4, d),
        text(f"{architecture}.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5),
        text("general.alignment") + struct.pack("<II", 4, 32),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 5) + b"".join(text(f"w{i}") for i in range(5)),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ5f", 9, 6, 5, *range(5)),
        text("x.nested") + struct.pack("<IIQIQ2H", 9, 9, 1, 2, 2, 7, 8),
    ]
    names: dict[str, Any] = {"token_embd.weight": rng.normal(size=(40, d)), "output_norm.weight": rng.normal(1, 0.1, d)}
    for i in range(layers):
        names |= {f"blk.{i}.{one}_norm.weight": rng.normal(1, 0.1, d) for one in ("attn", "ffn")}
        names |= {f"blk.{i}.{one}.weight": rng.normal(size=(d, d)) for one in ("attn_q", "attn_output", "ffn_down")}
    infos, data = b"", b""
    for name, value in names.items():
        axes = value.shape[::-1]
        infos += text(name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, 0, len(data))
        data += value.astype("<f4").tobytes()
        data += bytes(-len(data) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(names), len(keys)) + b"".join(keys) + infos
    return head + bytes(-len(head) % 32) + data


def torch_values(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what a state dict pickles as, and its storages."""
    values, data = {}, {}
    for number, (name, value) in enumerate(tensors.items()):
        strides = tuple(stride // 4 for stride in value.strides)
        values[name] = torch_files.tensor(str(number), value.shape, strides, count=value.size)
        data[str(number)] = value.tobytes()
    return values, data


def torch_archive(tensors: Mapping[str, Any]) -> bytes:
    """Return a zip file of torch.save."""
    return torch_files.archive(*torch_values(tensors))


def torch_stream(tensors: Mapping[str, Any]) -> bytes:
    """Return an older file of torch.save."""
    values, data = torch_values(tensors)
    return torch_files.stream(values, {key: (len(one) // 4, one) for key, one in data.items()})


def nemo() -> bytes:
    """Return a tar archive as NeMo's: settings and weights."""
    settings = (
        "model:\n  normalization: rmsnorm # or layernorm\n  layernorm_epsilon: 1e-5\n  num_layers: 2\nids:\n- a\n"
    )
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in {
            "./model_config.yaml": settings.encode(),
            "./model_weights.ckpt": torch_archive(arrays(layers=1)),
            "./" + "tokenizer" * 20 + ".model": b"x",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def openvino(kind: str) -> Tree:
    """Return the two files of an OpenVINO model."""
    with tempfile.TemporaryDirectory() as folder:
        path = openvino_files.transformer(kind).write(Path(folder) / "m.xml")
        return {"m.xml": path.read_bytes(), "m.bin": path.with_suffix(".bin").read_bytes()}


def ctranslate2() -> list[Tree]:
    """Return models as CTranslate2's converters write them."""
    made = ctranslate2_files
    found = [made.decoder(shift=shift) for shift in (False, True)]
    return [
        *({"model.bin": made.model(one)} for one in (*found, made.whisper(), made.quantised(found[0]))),
        {"model.bin": made.model(found[0], {"decoder/y/weight": "decoder/embeddings/weight"}), "config.json": b"{}"},
    ]


def flax() -> list[Tree]:
    """Return parameters as Flax writes them: nested maps of arrays, chunks of a large one, a list."""
    params: dict[str, Any] = {}
    for name, value in arrays("ln").items():
        *path, last = name.split(".")
        inner = params
        for one in path:
            inner = inner.setdefault(one, {})
        inner["scale" if "norm" in name and last == "weight" else "kernel" if last == "weight" else last] = value
    pieces = {"__msgpack_chunked_array__": 1, "shape": {"0": 4, "1": 4}, "chunks": {"0": np.ones(8, np.float32),
              "1": np.ones(8, np.float32)}}  # fmt: skip
    return [
        {"flax_model.msgpack": flax_files.tree({"params": params})},
        {"flax_model.msgpack": flax_files.tree({"params": {**params, "large": pieces}, "step": 3})},
        {"flax_model.msgpack": flax_files.tree({"optimizer": {"target": params}, "state": [1, 2]})},
    ]


def sharded() -> list[Tree]:
    """Return models in several files and their index, in both formats that are mostly met."""
    tensors = arrays(layers=1)
    half = len(tensors) // 2
    parts = [dict(list(tensors.items())[:half]), dict(list(tensors.items())[half:])]
    found = []
    for ending, write, stem in (("safetensors", safetensors_bytes, "model"), ("bin", torch_archive, "pytorch_model")):
        names = [f"{stem}-0000{i}-of-00002.{ending}" for i in (1, 2)]
        listed = {key: name for name, part in zip(names, parts, strict=True) for key in part}
        index = {"metadata": {"total_size": 9}, "weight_map": listed}
        files = {name: write(part) for name, part in zip(names, parts, strict=True)}
        config = json.dumps({"model_type": "llama", "rms_norm_eps": 1e-5}).encode()
        found.append({f"{stem}.{ending}.index.json": json.dumps(index).encode(), "config.json": config, **files})
    return found


def configured() -> list[Tree]:
    """Return small weights beside every kind of configuration that is read."""
    weights = {"model.safetensors": safetensors_bytes(arrays("ln", layers=1))}
    quantised = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}, "model_type": "llama"}
    tower = {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", "rms_norm_eps": 1e-6, "hidden_size": 16},
    }
    mistral = {"dim": 16, "n_layers": 1, "norm_eps": 1e-5, "vocab_size": 40}
    adapter = {"base_model_name_or_path": "org/llama-7b", "peft_type": "LORA", "target_modules": ["q_proj"]}
    written = {
        "config.json": [json.loads((FIXTURES / "llama-rms/config.json").read_text()), quantised, tower],
        "params.json": [mistral],
        "adapter_config.json": [adapter],
    }
    return [{**weights, name: json.dumps(one).encode()} for name, ones in written.items() for one in ones]


def distributed() -> list[Tree]:
    """Return a checkpoint of torch.distributed; none without torch."""
    try:
        import torch.distributed.checkpoint  # noqa: F401
    except ImportError:
        return []
    from tests.formats.pytorch.test_distributed import write

    with tempfile.TemporaryDirectory() as folder:
        made = write(Path(folder) / "c")
        return [{path.name: path.read_bytes() for path in sorted(made.iterdir())}]


def numpy_files() -> list[Tree]:
    """Return archives of arrays, packed and not."""
    found = []
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, **arrays(layers=1))
        found.append({"m.npz": out.getvalue()})
    return found


def ggml() -> list[Tree]:
    """Return a file as whisper.cpp's, and one as llama.cpp's of early 2023."""
    tensors = arrays("ln", layers=1)
    head = struct.pack("<4s8i", b"tjgg", 1, 5, 16, 16, 2, 1, 8, 0) + ggml_files.vocabulary(5, scores=True)
    return [
        {"ggml-model.bin": ggml_files.whisper(tensors, words=40)},
        {"ggml-model.ggml": head + ggml_files.records(tensors, 32, len(head))},
    ]


def tflite() -> list[Tree]:
    """Return networks of operators."""
    write, made = tflite_files.flatbuffer, tflite_files.transformer
    return [
        {"m.tflite": write(made(kind, quantised=packed))}
        for kind in ("LayerNorm", "RMSNorm")
        for packed in (False, True)
    ]


def hdf5() -> list[Tree]:
    """Return files in every version of the format, most of them small, and one of Keras among the fixtures."""

    def small(file: Any) -> None:
        file.attrs["keras_version"] = "3.5"
        for name in ("layer_normalization/vars/0", "layer_normalization/vars/1"):
            file[name] = np.ones(8, "f4")
        values = np.random.default_rng(0).normal(size=(16, 16)).astype("f4")
        file.create_dataset("dense/vars/0", data=values, chunks=(8, 8), compression="gzip", shuffle=True)
        file["dense/vars/1"] = values

    found = [hdf5_files.write(small, libver=version) for version in hdf5_files.VERSIONS.values()]
    large = [data for words, data in hdf5_files.seeds().items() if words.endswith(", 2 layers")]
    return [*({"m.h5": data} for data in (*found, *found, *large)), *fixtures("batchnorm*.h5")]


def onnx() -> list[Tree]:
    """Return small graphs, a norm in each as an operator, spelled out, in a function or in a branch, and fixtures."""
    node, field, integer = onnx_files.node, onnx_files.field, onnx_files.integer
    d = 16
    last = 2**64 - 1
    axis = field(1, "axis") + integer(3, last) + integer(20, 2)
    axes = field(1, "axes") + integer(8, last) + integer(20, 7)
    weights = (
        onnx_files.number("g", d), onnx_files.number("b", d), onnx_files.number("w", d, d),
        integer(1, 1) + integer(2, 1) + field(8, "eps") + field(9, struct.pack("<f", 1e-5)),
    )  # fmt: skip
    spelled = [
        node("ReduceMean", ["x"], ["m"], axes), node("Sub", ["x", "m"], ["c"]), node("Mul", ["c", "c"], ["s"]),
        node("ReduceMean", ["s"], ["v"], axes), node("Add", ["v", "eps"], ["e"]), node("Sqrt", ["e"], ["r"]),
        node("Div", ["c", "r"], ["h"]), node("Mul", ["h", "g"], ["k"]), node("Add", ["k", "b"], ["n"]),
    ]  # fmt: skip
    after = [node("MatMul", ["n", "w"], ["p"]), node("Add", ["p", "x"], ["y"])]
    operator = node("LayerNormalization", ["x", "g", "b"], ["n"], axis)
    called = node("Norm", ["x", "g", "b"], ["n"], domain="f")
    ends = b"".join(field(4, name) for name in "xgb") + field(5, "n")
    function = field(1, "Norm") + ends + field(7, operator) + field(10, "f")
    branch = field(1, operator) + field(12, field(1, "n"))
    names = ("then_branch", "else_branch")
    either = node("If", ["x"], ["n"], *(field(1, name) + field(6, branch) + integer(20, 5) for name in names))
    small = [
        onnx_files.onnx([*spelled, *after], weights=weights),
        onnx_files.onnx([operator, *after], weights=weights),
        onnx_files.onnx([called, *after], [function], weights=weights),
        onnx_files.onnx([either, *after], weights=weights),
    ]
    return [*fixtures("*.onnx"), *({"m.onnx": one} for one in 6 * small)]  # so often: the fixtures take long


def keras() -> list[Tree]:
    """Return small archives, their weights in every version of HDF5, and one of the fixtures."""
    node, layer = keras_files.node, keras_files.layer
    config = keras_files.model(
        node("InputLayer", "x"),
        node("LayerNormalization", "n", "x", center=True, rms_scaling=False, epsilon=1e-3, axis=-1),
        node("Dense", "up", "n", units=16, use_bias=True),
        node("LayerNormalization", "last", "up", "x", center=False),
    )

    def weights(file: Any) -> None:
        up = np.random.default_rng(0).normal(size=(8, 16)).astype("f4")
        layer(file, "layers/layer_normalization", "n", np.ones(8, "f4"), np.zeros(8, "f4"))
        layer(file, "layers/layer_normalization_1", "last", np.full(16, 2, "f4"))
        layer(file, "layers/dense", "up", up, np.zeros(16, "f4"))

    members = {
        "metadata.json": json.dumps({"keras_version": "3.15.1"}).encode(),
        "config.json": json.dumps(config).encode(),
    }
    found = [
        {"m.keras": keras_files.archive({**members, "model.weights.h5": hdf5_files.write(weights, libver=version)})}
        for version in hdf5_files.VERSIONS.values()
    ]
    return [*found, *fixtures("*.keras"), *found]
