"""Packed weights: what is dequantised equals what our own packing of the documented layouts put in, and labels stay."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray

from normsniff import decode, sniff
from normsniff.errors import FormatError, NormsniffError
from normsniff.inputs.arrays import from_arrays
from normsniff.inputs.opening import open_source
from normsniff.limits import Limits
from normsniff.meter import metered
from normsniff.packed.schemes import unpack
from normsniff.record import EVIDENCE_KINDS, EvidenceKind
from normsniff.source.views import Extent
from tests.helpers.manifest import FIXTURES

Array = NDArray[Any]
Packed = tuple[dict[str, Array], Array]
MODELS = ("llama-rms", "cohere-ln", "bert-ln")
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def join(values: Array, bits: int, axis: int, order: tuple[int, ...] | None = None) -> Array:
    """Pack unsigned integers along an axis into int32, lowest bits first."""
    values = np.moveaxis(values.astype(np.uint32), axis, -1)
    pack = 32 // bits
    groups = values.reshape(*values.shape[:-1], -1, pack)
    words = np.zeros(groups.shape[:-1], np.uint32)
    for i, column in enumerate(order or range(pack)):
        words |= groups[..., column] << np.uint32(bits * i)
    return np.moveaxis(words, -1, axis).view(np.int32)


def affine(weight: Array, group: int, bits: int) -> tuple[Array, Array, Array]:
    """Integers, scales and zeros of groups along the last axis; the integers as large as the weight."""
    grouped = weight.reshape(weight.shape[0], -1, group)
    low, high = grouped.min(-1), grouped.max(-1)
    scale = np.maximum((high - low) / (2**bits - 1), 1e-8).astype(np.float32)
    zero = np.clip(np.round(-low / scale), 1, 2**bits - 1)
    q = np.clip(np.round(grouped / scale[..., None]) + zero[..., None], 0, 2**bits - 1)
    return q.reshape(weight.shape), scale, zero


def restored(q: Array, scale: Array, zero: Array, group: int) -> Array:
    at = np.arange(q.shape[1]) // group
    return ((q - zero[:, at]) * scale[:, at]).astype(np.float32)


def gptq(bits: int, shuffled: bool) -> Callable[[Array], Packed]:
    def pack(weight: Array) -> Packed:
        inputs = weight.shape[1]
        order = np.random.default_rng(0).permutation(inputs) if shuffled else np.arange(inputs)
        q, scale, zero = affine(weight[:, order], 32, bits)
        index = np.empty(inputs, np.int32)
        index[order] = np.arange(inputs) // 32
        back = np.argsort(order)
        tensors = {
            "qweight": join(q[:, back].T, bits, 0), "qzeros": join((zero - 1).T, bits, 1), "scales": scale.T.copy(),
            "g_idx": index,
        }  # fmt: skip
        return tensors, restored(q, scale, zero, 32)[:, back]

    return pack


def awq(weight: Array) -> Packed:
    q, scale, zero = affine(weight, 32, 4)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    tensors = {"qweight": join(q.T, 4, 1, order), "qzeros": join(zero.T, 4, 1, order), "scales": scale.T.copy()}
    return tensors, restored(q, scale, zero, 32)


def mlx(bits: int) -> Callable[[Array], Packed]:
    def pack(weight: Array) -> Packed:
        q, scale, zero = affine(weight, 64, bits)
        tensors = {"weight": join(q, bits, 1).view(np.uint32), "scales": scale, "biases": -zero * scale}
        return tensors, restored(q, scale, zero, 64)

    return pack


def pack_quantized(bits: int, per_channel: bool) -> Callable[[Array], Packed]:
    def pack(weight: Array) -> Packed:
        group = weight.shape[1] if per_channel else 32
        grouped = weight.reshape(weight.shape[0], -1, group)
        scale = (np.abs(grouped).max(-1) / (2 ** (bits - 1) - 1)).astype(np.float32)
        at = np.arange(weight.shape[1]) // group
        q = np.clip(np.round(weight / scale[:, at]), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        tensors = {
            "weight_packed": join(q + 2 ** (bits - 1), bits, 1), "weight_scale": scale,
            "weight_shape": np.array(weight.shape, np.int64),
        }  # fmt: skip
        return tensors, (q * scale[:, at]).astype(np.float32)

    return pack


def fp8(block: int) -> Callable[[Array], Packed]:
    """Block 0: a scale for all; 1: for a row; else for blocks."""

    def pack(weight: Array) -> Packed:
        rows, columns = weight.shape
        if block > 1:
            at = np.ix_(np.arange(rows) // block, np.arange(columns) // block)
            shape = (-(-rows // block), -(-columns // block))
        else:
            at = np.ix_(np.arange(rows) if block else np.zeros(rows, int), np.zeros(columns, int))
            shape = (rows if block else 1, 1)
        scale = np.random.default_rng(1).uniform(0.001, 0.002, shape).astype(np.float32)
        stored = (weight / scale[at]).clip(-400, 400).astype(ml_dtypes.float8_e4m3fn)
        side = "weight_scale_inv" if block > 1 else "weight_scale"
        tensors = {"weight": stored, side: scale if block else scale.reshape(())}
        return tensors, stored.astype(np.float32) * scale[at]

    return pack


def bnb8(weight: Array) -> Packed:
    scb = np.abs(weight).max(1).astype(np.float32)
    q = np.round(weight * 127 / scb[:, None]).astype(np.int8)
    tensors = {"weight": q, "SCB": scb, "weight_format": np.array(0, np.uint8)}
    return tensors, q.astype(np.float32) * scb[:, None] / np.float32(127)


def bnb4(nested: bool) -> Callable[[Array], Packed]:
    def pack(weight: Array) -> Packed:
        code = np.linspace(-1, 1, 16).astype(np.float32)
        flat = weight.reshape(-1, 64)
        absmax = np.abs(flat).max(1).astype(np.float32)
        tensors: dict[str, Array] = {}
        told: dict[str, Any] = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(weight.shape)}
        if nested:
            offset = float(absmax.mean())
            table = np.linspace(-1, 1, 256).astype(np.float32)
            outer = np.pad(absmax - offset, (0, -absmax.size % 256)).reshape(-1, 256)
            scale = np.maximum(np.abs(outer).max(1), 1e-9).astype(np.float32)
            u = np.abs(outer[..., None] / scale[:, None, None] - table).argmin(-1).astype(np.uint8)
            absmax = ((table[u] * scale[:, None]).reshape(-1)[: absmax.size] + offset).astype(np.float32)
            told |= {"nested_blocksize": 256, "nested_offset": offset, "nested_dtype": "float32"}
            tensors |= {
                "weight.absmax": u.reshape(-1)[: absmax.size], "weight.nested_absmax": scale,
                "weight.nested_quant_map": table,
            }  # fmt: skip
        else:
            tensors["weight.absmax"] = absmax
        q = np.abs(flat[..., None] / absmax[:, None, None] - code).argmin(-1).astype(np.uint8).reshape(-1)
        state = np.frombuffer(json.dumps(told).encode(), np.uint8)
        tensors |= {
            "weight": (q[0::2] << 4 | q[1::2]).reshape(-1, 1), "weight.quant_map": code,
            "weight.quant_state.bitsandbytes__nf4": state,
        }  # fmt: skip
        return tensors, (code[q].reshape(-1, 64) * absmax[:, None]).reshape(weight.shape)

    return pack


def nvfp4(inverse: bool) -> Callable[[Array], Packed]:
    def pack(weight: Array) -> Packed:
        whole = np.float32(np.abs(weight).max() / (6 * 448))
        grouped = weight.reshape(weight.shape[0], -1, 16)
        scale = (np.abs(grouped).max(-1) / 6 / whole).astype(ml_dtypes.float8_e4m3fn)
        steps = grouped / np.maximum(scale.astype(np.float32), 1e-3)[..., None] / whole
        q = np.abs(steps[..., None] - FP4).argmin(-1).astype(np.uint8)
        words = (q[..., 0::2] | q[..., 1::2] << 4).reshape(weight.shape[0], -1)
        name = "weight_packed" if inverse else "weight"
        side = ("weight_global_scale", np.array([1 / whole])) if inverse else ("weight_scale_2", np.array(whole))
        tensors = {name: words, "weight_scale": scale, side[0]: side[1].astype(np.float32)}
        used = 1 / side[1].astype(np.float32) if inverse else side[1]
        return tensors, (FP4[q] * scale.astype(np.float32)[..., None] * used).reshape(weight.shape).astype(np.float32)

    return pack


SCHEMES: dict[str, tuple[Callable[[Array], Packed], dict[str, Any]]] = {
    "gptq-4": (gptq(4, False), {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
    "gptq-8-act-order": (gptq(8, True), {"quantization_config": {"quant_method": "gptq", "bits": 8}}),
    "awq": (awq, {"quantization_config": {"quant_method": "awq", "bits": 4}}),
    "mlx-4": (mlx(4), {"quantization": {"bits": 4, "group_size": 64}}),
    "mlx-8": (mlx(8), {"quantization": {"bits": 8, "group_size": 64}}),
    "compressed-int4": (pack_quantized(4, False), {}),
    "compressed-int8-channel": (pack_quantized(8, True), {}),
    "fp8-blocks": (fp8(32), {"quantization_config": {"quant_method": "fp8", "weight_block_size": [32, 32]}}),
    "fp8-rows": (fp8(1), {}),
    "fp8-tensor": (fp8(0), {}),
    "bnb-8": (bnb8, {}),
    "bnb-4": (bnb4(False), {}),
    "bnb-4-nested": (bnb4(True), {}),
    "nvfp4-compressed": (nvfp4(True), {}),
    "nvfp4-modelopt": (nvfp4(False), {}),
}
_DTYPES = {"float8_e4m3fn": "F8_E4M3", "int32": "I32", "uint32": "U32", "uint8": "U8", "int8": "I8", "int64": "I64"}


def save(path: Path, tensors: Mapping[str, Array]) -> None:
    header, parts, at = {}, [], 0
    for name, array in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        word = _DTYPES.get(array.dtype.name, "F32")
        header[name] = {"dtype": word, "shape": array.shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def master(model: str) -> dict[str, Array]:
    checkpoint = open_source(FIXTURES / model / "model.safetensors")
    try:
        return {name: decode.read(tensor, Limits()) for name, tensor in checkpoint.tensors.items()}
    finally:
        checkpoint.close()


def quantise(model: str, pack: Callable[[Array], Packed]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Pack the matrices of the blocks; return what is stored, and what the matrices are worth."""
    stored: dict[str, Array] = {}
    worth: dict[str, Array] = {}
    for name, array in master(model).items():
        if array.ndim == 2 and "layer" in name and name.endswith(".weight"):
            tensors, worth[name] = pack(array)
            stored |= {f"{name.removesuffix('.weight')}.{side}": t for side, t in tensors.items()}
        else:
            stored[name] = array
    return stored, worth


@pytest.mark.parametrize("scheme", SCHEMES)
def test_slices_equal_what_was_packed(scheme: str, tmp_path: Path) -> None:
    pack, config = SCHEMES[scheme]
    stored, worth = quantise("llama-rms", pack)
    save(tmp_path / "model.safetensors", stored)
    (tmp_path / "config.json").write_text(json.dumps(config))
    for checkpoint in (
        open_source(tmp_path),
        unpack(dataclasses.replace(from_arrays(stored), config=config), Limits()),
    ):
        assert not checkpoint.warnings
        assert set(checkpoint.tensors) == set(master("llama-rms"))
        for name, expected in worth.items():
            tensor = checkpoint.tensors[name]
            assert tensor.shape == expected.shape
            assert np.allclose(decode.read(tensor, Limits()), expected, rtol=2e-5, atol=1e-7), name
            assert not isinstance(tensor.storage, Extent)
            for rows, columns in (
                (slice(3, 9), slice(5, 31)),
                (slice(0, 1), slice(0, 64)),
                (slice(17, 32), slice(7, 8)),
            ):
                part = tensor.storage.read((rows, columns))
                assert np.allclose(part, expected[rows, columns], rtol=2e-5, atol=1e-7), (name, rows, columns)
        checkpoint.close()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_labels_are_those_of_the_plain_weights(scheme: str, model: str, tmp_path: Path) -> None:
    pack, config = SCHEMES[scheme]
    save(tmp_path / "model.safetensors", quantise(model, pack)[0])
    (tmp_path / "config.json").write_text(json.dumps(config))
    every: tuple[tuple[EvidenceKind, ...], ...] = (EVIDENCE_KINDS, ("kernel",))
    for kinds in every:
        # whole, as quantised weights may be certain a batch later
        plain, packed = (sniff(one, evidence=kinds, budget=None) for one in (master(model), tmp_path))
        assert packed.label == plain.label
        assert packed.scales == plain.scales
        assert packed.shifts == plain.shifts
        assert len(packed.shadows) == len(plain.shadows)


def test_mxfp4_experts(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    blocks = generator.integers(0, 256, (3, 40, 2, 16), np.uint8)
    scales = generator.integers(120, 130, (3, 40, 2), np.uint8)
    stem = "model.layers.0.mlp.experts.gate_up_proj"
    stored = {f"{stem}_blocks": blocks, f"{stem}_scales": scales, f"{stem}_bias": np.zeros((3, 40), np.float32)}
    save(tmp_path / "model.safetensors", stored)
    values = (
        np.stack([FP4[blocks & 15], FP4[blocks >> 4]], -1) * np.exp2(scales.astype(np.float32) - 127)[..., None, None]
    )
    expected = values.reshape(3, 40, 64)
    for source in (tmp_path / "model.safetensors", stored):
        checkpoint = open_source(source)
        assert set(checkpoint.tensors) == {stem, f"{stem}_bias"}
        tensor = checkpoint.tensors[stem]
        assert np.array_equal(decode.read(tensor, Limits()), expected)
        rows = np.concatenate(list(decode.vectors(tensor, 2, Limits())))
        assert np.array_equal(np.sort(rows, axis=0), np.sort(expected.reshape(-1, 64), axis=0))
        columns = np.concatenate(list(decode.vectors(tensor, 1, Limits())))
        assert columns.shape == (3 * 64, 40)
        checkpoint.close()


UNCERTAIN: dict[str, dict[str, Array]] = {
    "mlx without a configuration": {
        "weight": np.zeros((64, 8), np.uint32), "scales": np.ones((64, 1), np.float32),
        "biases": np.zeros((64, 1), np.float32),
    },
    "gptq with foreign scales": {
        "qweight": np.zeros((8, 64), np.int32), "qzeros": np.zeros((2, 8), np.int32),
        "scales": np.ones((2, 63), np.float32),
    },
    "g_idx of another length": {
        "qweight": np.zeros((8, 64), np.int32), "qzeros": np.zeros((2, 8), np.int32),
        "scales": np.ones((2, 64), np.float32), "g_idx": np.zeros(63, np.int32),
    },
    "zero points": {
        "weight_packed": np.zeros((64, 8), np.int32), "weight_scale": np.ones((64, 2), np.float32),
        "weight_shape": np.array([64, 64]), "weight_zero_point": np.zeros((8, 2), np.int32),
    },
    "fp8 blocks of another size": {
        "weight": np.zeros((64, 64), np.int8), "weight_scale_inv": np.ones((3, 5), np.float32),
    },
    "4-bit without quant_state": {"weight": np.zeros((8, 1), np.uint8), "weight.absmax": np.ones(1, np.float32)},
    "4-bit with a broken quant_state": {
        "weight": np.zeros((2048, 1), np.uint8), "weight.absmax": np.ones(64, np.float32),
        "weight.quant_map": np.zeros(16, np.float32),
        "weight.quant_state.bitsandbytes__nf4": np.frombuffer(b'{"shape": [64, "x"], "blocksize": 64}', np.uint8),
    },
}  # fmt: skip


@pytest.mark.parametrize("case", UNCERTAIN)
def test_uncertain_layouts_are_left_out_and_named(case: str) -> None:
    tensors = {f"layers.0.proj.{side}": array for side, array in UNCERTAIN[case].items()}
    checkpoint = open_source({**tensors, "norm.weight": np.ones(64, np.float32)})
    assert set(checkpoint.tensors) == {"norm.weight"}
    assert any("left out" in warning for warning in checkpoint.warnings)


def test_groups_are_read_where_a_block_asks_for_them() -> None:
    """One g_idx may stand under a thousand names: kept for each, a file of a megabyte would take gigabytes."""

    class Untouchable:
        def read(self, index: tuple[slice, ...]) -> Array:
            raise AssertionError(index)

    tensors = {
        f"layers.0.proj.{side}": array for side, array in gptq(4, True)(np.ones((64, 64), np.float32))[0].items()
    }
    checkpoint = from_arrays(tensors)
    groups = replace(checkpoint.tensors["layers.0.proj.g_idx"], storage=Untouchable())
    listed = {**checkpoint.tensors, groups.name: groups}
    assert set(unpack(dataclasses.replace(checkpoint, tensors=listed), Limits()).tensors) == {"layers.0.proj.weight"}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_unpacking_is_work_by_the_elements(scheme: str) -> None:
    """It was free: a thousand names for one GPTQ matrix of a megabyte, read whole, took 50 s."""
    pack, config = SCHEMES[scheme]
    tensors = {f"layers.0.mlp.up_proj.{side}": array for side, array in pack(np.ones((64, 128), np.float32))[0].items()}
    with metered("m", Limits()) as meter:
        found = unpack(dataclasses.replace(from_arrays(tensors), config=config), Limits())
        weight = found.tensors["layers.0.mlp.up_proj.weight"]
        before = meter.steps
        decode.read(weight, Limits())
        assert meter.steps - before >= 64 * 128 // 64


def test_a_group_that_is_not_there_is_an_error_of_the_file() -> None:
    tensors = {
        f"layers.0.proj.{side}": array for side, array in gptq(4, True)(np.ones((64, 64), np.float32))[0].items()
    }
    tensors["layers.0.proj.g_idx"] = np.full(64, 7, np.int32)
    weight = open_source(tensors).tensors["layers.0.proj.weight"]
    with pytest.raises(FormatError, match="g_idx names group 7 of 2"):
        decode.read(weight, Limits())


@pytest.mark.parametrize("bits", [4.0, True, "4", [4], 2**70])
def test_bits_that_are_no_integer_make_no_matrix(bits: object) -> None:
    tensors = {
        f"layers.0.proj.{side}": array for side, array in gptq(4, False)(np.ones((64, 64), np.float32))[0].items()
    }
    del tensors["layers.0.proj.g_idx"]
    config = {"quantization_config": {"bits": bits}}
    found = unpack(dataclasses.replace(from_arrays(tensors), config=config), Limits())
    assert not found.tensors
    assert "unknown number of bits" in found.warnings[-1]


def test_look_alikes_stay() -> None:
    tensors = {
        "head.scales": np.ones(4, np.float32),
        "conv.weight_scale": np.ones(1, np.float32),
        "building_blocks": np.ones((2, 2), np.float32),
        "norm.weight": np.ones(64, np.float32),
    }
    assert set(open_source(tensors).tensors) == set(tensors)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(SCHEMES)), st.data())
def test_any_damage_gives_an_answer_or_an_error_of_ours(scheme: str, data: st.DataObject) -> None:
    pack, config = SCHEMES[scheme]
    weight = np.random.default_rng(3).normal(size=(64, 128)).astype(np.float32)
    tensors = {f"layers.0.mlp.up_proj.{side}": np.array(array) for side, array in pack(weight)[0].items()}
    name = data.draw(st.sampled_from(sorted(tensors)))
    if data.draw(st.booleans()):
        raw = bytearray(tensors[name].tobytes())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        tensors[name] = np.frombuffer(bytes(raw), tensors[name].dtype).reshape(tensors[name].shape)
    else:
        tensors[name] = tensors[name].reshape(-1)[: data.draw(st.integers(0, tensors[name].size))]
    try:
        with np.errstate(all="ignore"):
            checkpoint = unpack(dataclasses.replace(from_arrays(tensors), config=config), Limits())
            for tensor in checkpoint.tensors.values():
                decode.read(tensor, Limits())
    except NormsniffError:
        pass
