"""Packed weights against the libraries that pack them: they pack a known matrix, and both sides unpack it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from normsniff import decode
from normsniff.inputs.arrays import from_arrays
from normsniff.limits import Limits
from normsniff.packed.schemes import unpack

ROWS, COLUMNS = 96, 128
MATRIX = (np.random.default_rng(0).normal(size=(ROWS, COLUMNS)) * 0.05).astype(np.float32)


def same(stored: Mapping[str, Any], wanted: Any, config: dict[str, Any] | None = None, tolerance: float = 0.0) -> None:
    """Our weight is theirs; nothing that lay beside it is left over."""
    checkpoint = unpack(replace(from_arrays({f"layer.{k}": v for k, v in stored.items()}), config=config), Limits())
    assert list(checkpoint.tensors) == ["layer.weight"], checkpoint.warnings
    ours = decode.read(checkpoint.tensors["layer.weight"], Limits()).astype(np.float32)
    np.testing.assert_allclose(ours, np.asarray(wanted, np.float32), rtol=tolerance, atol=tolerance * 0.25)
    assert 0 < np.abs(ours - MATRIX).max() < 0.1


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_bitsandbytes_4_bit(kind: str, nested: bool) -> None:
    torch, functional = pytest.importorskip("torch"), pytest.importorskip("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(torch.tensor(MATRIX), quant_type=kind, compress_statistics=nested)
    sides = {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    same({"weight": packed, **sides}, functional.dequantize_4bit(packed, state))


def test_bitsandbytes_8_bit() -> None:
    torch, functional = pytest.importorskip("torch"), pytest.importorskip("bitsandbytes.functional")
    packed, scales, _ = functional.int8_vectorwise_quant(torch.tensor(MATRIX).half())
    wanted = functional.int8_vectorwise_dequant(packed, scales)
    same({"weight": packed, "SCB": scales, "weight_format": torch.tensor(0, dtype=torch.uint8)}, wanted, None, 1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [32, 64])
def test_mlx(bits: int, group: int) -> None:
    mx = pytest.importorskip("mlx.core")
    parts = mx.quantize(mx.array(MATRIX), group_size=group, bits=bits)
    stored = dict(zip(("weight", "scales", "biases"), map(np.array, parts), strict=True))
    wanted = np.array(mx.dequantize(*parts, group_size=group, bits=bits))
    same(stored, wanted, {"quantization": {"bits": bits, "group_size": group}})


_SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "int4 in groups": ("pack_quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}),
    "int8 in groups": ("pack_quantized", {"num_bits": 8, "type": "int", "strategy": "group", "group_size": 128}),
    "int4 by row": ("pack_quantized", {"num_bits": 4, "type": "int", "strategy": "channel"}),
    "FP8 whole": ("naive_quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}),
    "FP8 by row": ("naive_quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    "int8 by row": ("naive_quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}),
    "NVFP4": ("nvfp4", {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}),
    "MXFP4": ("mxfp4", {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", _SCHEMES)
def test_compressed_tensors(name: str) -> None:
    torch, quantization = pytest.importorskip("torch"), pytest.importorskip("compressed_tensors.quantization")
    kind, arguments = _SCHEMES[name]
    module = pytest.importorskip(f"compressed_tensors.compressors.{kind}.base")
    classes = {
        "pack_quantized": "PackedQuantizationCompressor", "naive_quantized": "NaiveQuantizationCompressor",
        "nvfp4": "NVFP4PackedCompressor", "mxfp4": "MXFP4PackedCompressor",
    }  # fmt: skip
    compressor = getattr(module, classes[kind])
    weights = quantization.QuantizationArgs(symmetric=True, **arguments)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=weights)
    matrix = torch.tensor(MATRIX)
    group = arguments.get("group_size", COLUMNS)
    largest = matrix.reshape(ROWS, -1, group).abs().amax(-1)
    stored = {"weight": matrix}
    if kind == "nvfp4":
        whole = 448 * 6 / matrix.abs().max()
        stored |= {
            "weight_global_scale": whole.reshape(1),
            "weight_scale": (largest / 6 * whole).to(torch.float8_e4m3fn),
        }
        stored["weight_scale"] = stored["weight_scale"].float()
    elif kind == "mxfp4":
        stored["weight_scale"] = torch.exp2(torch.ceil(torch.log2(largest / 6)))
    else:
        most = 448 if arguments["type"] == "float" else 2 ** (arguments["num_bits"] - 1) - 1
        stored["weight_scale"] = (largest.max().reshape(1) if arguments["strategy"] == "tensor" else largest) / most
    packed = compressor.compress(stored, scheme)
    same(packed, compressor.decompress(packed, scheme)["weight"].float(), None, 4e-3 if kind == "nvfp4" else 1e-6)
