"""Directories as hubs and training runs lay them out: what is the model, what is passed over, and why."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from normsniff import sniff
from normsniff.errors import SourceError
from normsniff.inputs.filenames import choose, is_training_state, parallel_part, why_beside
from normsniff.inputs.walk import survey
from tests.helpers.manifest import ROOT
from tests.helpers.torch_files import archive, tensor

Shapes = Mapping[str, tuple[int, ...]]

LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5}
GGUF = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)
D, HIDDEN = 32, 96


def shapes(*, bias: bool = False, slices: int = 1, native: bool = False) -> dict[str, tuple[int, ...]]:
    """A small transformer; `native` has the names of Meta's files, `slices` the shapes of one of so many parts."""
    found: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight" if native else "embed_tokens.weight": (64, D // slices)
    }
    norms = ("attention_norm", "ffn_norm") if native else ("input_layernorm", "post_attention_layernorm")
    wide = ("attention.wq", "feed_forward.w1") if native else ("self_attn.q_proj", "mlp.gate_proj")
    tall = ("attention.wo", "feed_forward.w2") if native else ("self_attn.o_proj", "mlp.down_proj")
    for layer in range(2):
        for norm in norms:
            found |= {f"layers.{layer}.{norm}.{leaf}": (D,) for leaf in ("weight", "bias")[: 1 + bias]}
        for names, transposed in ((wide, False), (tall, True)):
            for name, width in zip(names, (D, HIDDEN), strict=True):
                shape = (width // slices, D)
                found[f"layers.{layer}.{name}.weight"] = shape[::-1] if transposed else shape
    return found | {"norm.weight": (D,)} | ({"norm.bias": (D,)} if bias else {})


def weights(tensors: Shapes) -> bytes:
    """A safetensors file."""
    header, parts, at = {}, [], 0
    for name, shape in tensors.items():
        values = np.random.default_rng(at).normal(size=shape).astype(np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(values)]}
        parts.append(values)
        at += len(values)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def torch_file(tensors: Shapes) -> bytes:
    """A file of torch.save."""
    content, data = {}, {}
    for key, (name, shape) in enumerate(tensors.items()):
        size = int(np.prod(shape))
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
        content[name] = tensor(str(key), shape, strides, count=size)
        data[str(key)] = np.random.default_rng(key).normal(size=size).astype(np.float32).tobytes()
    return archive(content, data)


def build(root: Path, tree: Mapping[str, object]) -> Path:
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return root


def surveyed(root: Path) -> tuple[list[str], dict[str, str]]:
    found = survey(root)
    return (
        [one.path.relative_to(root).as_posix() for one in found.inputs],
        {path.relative_to(root).as_posix(): reason for path, reason in found.skipped},
    )


MODEL = weights(shapes())
ADAPTER = weights(
    {
        f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_{side}.weight": (4, D) if side == "A" else (D, 4)
        for n in range(2)
        for side in "AB"
    }
)


def test_a_repository_with_everything_that_people_upload(tmp_path: Path) -> None:
    build(
        tmp_path,
        {
            "config.json": LLAMA,
            "model.safetensors": MODEL,
            "model.fp16.safetensors": MODEL,
            "pytorch_model.bin": torch_file(shapes()),
            "tf_model.h5": HDF5,
            "adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "someone/base"},
            "adapter_model.safetensors": ADAPTER,
            "model_ema.safetensors": MODEL,
            "optimizer.pt": torch_file({"state": (4,)}),
            "scaler.pt": torch_file({"scale": (4,)}),
            "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": torch_file({"flat": (4,)}),
            "model-Q4_K_M.gguf": GGUF,
            "model-Q8_0.gguf": GGUF,
            "mmproj-model-f16.gguf": GGUF,
            "tokenizer.json": {},
            "onnx/model.onnx": b"",
            "original/consolidated.00.pth": torch_file(shapes(native=True)),
            "1_Pooling/config.json": {},
        },
    )
    inputs, reasons = surveyed(tmp_path)
    assert inputs == ["model.safetensors"]
    below = "not searched: the directory above it is one model, model.safetensors"
    chosen = "the model in model.safetensors"
    state = "state of a training run"
    assert reasons == {
        "model.fp16.safetensors": f"a variant of {chosen}",
        "pytorch_model.bin": f"another file of {chosen}",
        "tf_model.h5": f"another file of {chosen}",
        "adapter_model.safetensors": f"an adapter, beside {chosen}",
        "model_ema.safetensors": f"a moving average (EMA) of the weights, beside {chosen}",
        "optimizer.pt": state,
        "scaler.pt": state,
        "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": state,
        "model-Q4_K_M.gguf": f"another file of {chosen}",
        "model-Q8_0.gguf": f"another file of {chosen}",
        "mmproj-model-f16.gguf": f"the vision or audio tower of GGUF files, beside {chosen}",
        "onnx": below,
        "original": below,
        "1_Pooling": below,
    }
    assert sniff(tmp_path, evidence=("declared", "layout")).label == "RMSNorm"


def test_variants_stand_for_the_model_where_the_plain_file_is_absent(tmp_path: Path) -> None:
    build(
        tmp_path,
        {"config.json": LLAMA, "model.fp16.safetensors": MODEL, "pytorch_model.fp16.bin": torch_file(shapes())},
    )
    inputs, reasons = surveyed(tmp_path)
    assert inputs == ["model.fp16.safetensors"]
    assert reasons == {"pytorch_model.fp16.bin": "a variant of the model in model.fp16.safetensors"}


def test_shards_of_a_variant_beside_those_of_the_model() -> None:
    plain, half = "model.safetensors.index.json", "model.fp16-00001-of-00002.safetensors"
    formats = {plain: "safetensors", half: "safetensors"}
    assert choose(formats, configured=True) == plain
    assert choose({half: "safetensors", "pytorch_model.bin": "PyTorch"}, configured=True) == half
    old = "diffusion_pytorch_model-00001-of-00002.fp16.safetensors"
    assert choose({old: "safetensors", "diffusion_pytorch_model.bin": "PyTorch"}, configured=True) == old
    assert choose({"a.safetensors": "safetensors", "b.safetensors": "safetensors"}, configured=True) is None


@pytest.mark.parametrize("count", [2, 4])
def test_tensor_parallel_parts_are_one_model(tmp_path: Path, count: int) -> None:
    """Every part holds the norms whole and slices of the matrices; the first one is read, and the record says so."""
    names = [f"consolidated.{n:02d}.pth" for n in range(count)]
    data = torch_file(shapes(slices=count, native=True))
    build(tmp_path, {**dict.fromkeys(names, data), "params.json": {"dim": D, "n_layers": 2, "norm_eps": 1e-5}})
    inputs, reasons = surveyed(tmp_path)
    assert inputs == names[:1]
    assert reasons == dict.fromkeys(
        names[1:], f"other slices of the matrices in {names[0]}, which stands for the model"
    )
    for path in (tmp_path, tmp_path / names[1]):
        record = sniff(path)
        assert (record.label, record.d_model) == ("RMSNorm", D)
        assert any(f"one of {count} tensor-parallel parts" in warning for warning in record.warnings)
    (tmp_path / "params.json").unlink()
    assert surveyed(tmp_path)[0] == names[:1], "without a configuration, too"
    assert sniff(tmp_path, evidence=("declared", "layout")).label == "RMSNorm"


def test_one_part_alone_is_no_part(tmp_path: Path) -> None:
    build(tmp_path, {"consolidated.00.pth": torch_file(shapes(native=True))})
    assert not any("tensor-parallel" in warning for warning in sniff(tmp_path).warnings)
    assert parallel_part("model1.pth") is None
    assert parallel_part("mp_rank_00.pt") is None
    assert parallel_part("model3-mp16.safetensors") == ("model*-mp16.safetensors", 3)
    assert parallel_part("mp_rank_01_model_states.pt") == ("mp_rank_*_model_states.pt", 1)


def test_an_adapter_alone_has_no_norms_and_names_its_base_model(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": "someone/base", "bias": "none"}
    build(tmp_path, {"adapter_config.json": config, "adapter_model.safetensors": ADAPTER, "optimizer.pt": b"x"})
    record = sniff(tmp_path)
    assert record.label == "none"
    assert (
        record.evidence[0].reason == "4 of 4 tensors are an adapter's: the norms are in its base model 'someone/base'"
    )


def test_an_adapter_beside_the_configuration_of_its_base_model_has_that_models_norm(tmp_path: Path) -> None:
    build(tmp_path, {"config.json": LLAMA, "adapter_model.safetensors": ADAPTER})
    record = sniff(tmp_path)
    assert record.label == "RMSNorm"
    assert "model type 'llama' uses RMSNorm" in record.evidence[0].reason
    assert "4 of 4 tensors are an adapter's" in record.evidence[0].reason


@pytest.mark.parametrize(
    "names",
    [
        (
            "lora_unet_down_blocks_0_attentions_0_to_k.lora_down.weight",
            "lora_unet_down_blocks_0_attentions_0_to_k.alpha",
        ),
        ("unet.down_blocks.0.attentions.0.processor.to_q_lora.down.weight", "unet.mid.processor.to_q_lora.up.weight"),
        ("text_encoder.layers.0.k_proj.lora_linear_layer.up.weight", "unet.x.k_proj.lora.down.weight"),
        ("base_model.model.layers.0.k_proj.ia3_l", "base_model.model.layers.0.mlp.down_proj.ia3_l"),
        ("prompt_embeddings",),
        ("base_model.model.layers.0.q_proj.oft_r", "base_model.model.layers.0.q_proj.vera_lambda_b"),
    ],
)
def test_adapters_of_all_kinds(names: tuple[str, ...]) -> None:
    generator = np.random.default_rng(0)
    assert sniff({name: generator.normal(size=(D, 4)) for name in names}).label == "none"


def test_a_diffusers_repository_is_several_models(tmp_path: Path) -> None:
    parts: dict[str, object] = {f"{part}/config.json": {} for part in ("unet", "vae", "text_encoder")}
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        parts |= {f"{part}/{stem}.safetensors": MODEL, f"{part}/{stem}.fp16.safetensors": MODEL}
    parts |= {"unet/diffusion_pytorch_model.non_ema.safetensors": MODEL}
    build(tmp_path, {"model_index.json": {}, "scheduler/scheduler_config.json": {}, **parts})
    inputs, reasons = surveyed(tmp_path)
    assert inputs == [
        "text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    assert len(reasons) == 4
    why = "the weights before averaging (EMA), beside the model in diffusion_pytorch_model.safetensors"
    assert reasons["unet/diffusion_pytorch_model.non_ema.safetensors"] == why
    with pytest.raises(SourceError, match="holds 3 models"):
        sniff(tmp_path)


def test_a_training_run_is_its_weights(tmp_path: Path) -> None:
    step: dict[str, object] = {
        "config.json": LLAMA,
        "model.safetensors": MODEL,
        "optimizer.pt": b"x",
        "rng_state_0.pth": b"x",
    }
    run = {f"checkpoint-{n}/{name}": data for n in (1, 2) for name, data in step.items()}
    build(tmp_path, run)
    inputs, reasons = surveyed(tmp_path)
    assert inputs == ["checkpoint-1/model.safetensors", "checkpoint-2/model.safetensors"]
    assert set(reasons.values()) == {"state of a training run"}


def test_exports_without_the_original_weights_are_a_model_each(tmp_path: Path) -> None:
    fixture = (ROOT / "fixtures" / "llama-rms.dynamo23.f16.onnx").read_bytes()
    build(tmp_path, {"config.json": LLAMA, "onnx/model.onnx": fixture, "onnx/model_quantized.onnx": fixture})
    assert surveyed(tmp_path)[0] == ["onnx/model.onnx", "onnx/model_quantized.onnx"]


def test_archives_of_models_are_named_not_passed_over(tmp_path: Path) -> None:
    build(tmp_path, {"model.safetensors": MODEL, "older.tar.gz": b"\x1f\x8b" + bytes(30)})
    inputs, reasons = surveyed(tmp_path)
    assert inputs == ["model.safetensors"]
    assert reasons == {"older.tar.gz": "an archive: unpack it first"}


@pytest.mark.parametrize("name", ["optimizers-in-my-name.safetensors", "scalers.bin", "model.pt", "sampling.pt"])
def test_names_that_only_resemble_training_state(name: str) -> None:
    assert not is_training_state(name)


def test_reasons_fit_names() -> None:
    chosen = "model.safetensors"
    assert why_beside("schema.safetensors", chosen) == "another file of the model in model.safetensors"
    assert why_beside("ema.pt", chosen).startswith("a moving average")
    assert why_beside("unet_ema.safetensors", chosen).startswith("a moving average")
    assert why_beside("my_lora.safetensors", chosen).startswith("an adapter")
    assert why_beside("flora.safetensors", chosen).startswith("another file")
