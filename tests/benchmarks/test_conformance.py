"""The label is right on headers of known architectures: a fast part of benchmarks/conformance, and its traps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.conformance import shipped
from benchmarks.conformance.cases import Case, Value
from benchmarks.conformance.report import answer, table
from normsniff import sniff

Shapes = dict[str, tuple[int, ...]]


def block(prefix: str, norms: tuple[str, ...], *, bias: bool = False, d: int = 64, hidden: int = 192) -> Shapes:
    shapes: Shapes = {}
    for layer in range(3):
        at = prefix.format(layer)
        for norm in norms:
            shapes[f"{at}.{norm}.weight"] = (d,)
            if bias:
                shapes[f"{at}.{norm}.bias"] = (d,)
        shapes |= {f"{at}.self_attn.q_proj.weight": (d, d), f"{at}.self_attn.o_proj.weight": (d, d)}
        shapes |= {f"{at}.mlp.gate_proj.weight": (hidden, d), f"{at}.mlp.down_proj.weight": (d, hidden)}
    return shapes


def label(shapes: Shapes, config: dict[str, Any] | None, tmp_path: Path) -> str:
    case = Case("case", "transformers", "", "", {}, shapes, config=config)
    return sniff(case.write(tmp_path), evidence=("declared", "layout")).label


def test_every_shipped_fact_about_gguf_decides_its_files() -> None:
    cases = [case for case in shipped.cases() if case.group.startswith("GGUF")]
    answers = [one for case in cases for one in answer(case)]
    assert len(answers) > 200
    assert {a.case.name for a in answers if a.outcome != "right"} <= {
        "phimoe", "refact",  # disputed
        "gptj",  # its shifts are not known, so that the case has none
    }, table(answers)  # fmt: skip
    assert not [a.case.name for a in answers if a.outcome == "wrong"]


def test_a_sample_of_model_types() -> None:
    cases = [case for case in shipped.cases() if case.group == "transformers"]
    sample = [case for case in cases if hash_of(case.name) % 12 == 0]
    answers = [one for case in sample for one in answer(case)]
    named = [a for a in answers if "numbers" not in a.case.variant]
    assert len(named) > 20
    assert not [(a.case.name, a.label) for a in named if a.outcome != "right"], table(answers)
    numbered = [a for a in answers if "numbers" in a.case.variant]
    assert not [(a.case.name, a.label) for a in numbered if a.outcome == "wrong"]


def hash_of(name: str) -> int:
    """The same in every process, unlike `hash`."""
    return sum(name.encode())


def test_one_norm_for_attention_and_mlp_makes_the_lack_of_a_shift_undecided(tmp_path: Path) -> None:
    """Cohere without its configuration is LayerNorm, but PLaMo's blocks are RMSNorm."""
    shapes = block("model.layers.{}", ("input_layernorm",)) | {"model.norm.weight": (64,)}
    assert label(shapes, None, tmp_path) == "undetermined"
    two = block("model.layers.{}", ("input_layernorm", "post_attention_layernorm")) | {"model.norm.weight": (64,)}
    assert label(two, None, tmp_path) == "RMSNorm"
    assert label(shapes, {"model_type": "cohere"}, tmp_path) == "LayerNorm"


def test_names_of_layer_norm_families_make_the_lack_of_a_shift_undecided(tmp_path: Path) -> None:
    shapes = block("layers.{}", ("attn_norm", "mlp_norm")) | {
        "embeddings.norm.weight": (64,),
        "final_norm.weight": (64,),
    }
    assert label(shapes, None, tmp_path) == "undetermined"
    assert label(shapes, {"model_type": "modernbert"}, tmp_path) == "LayerNorm"


def test_norms_outside_of_blocks_do_not_speak_for_those_inside(tmp_path: Path) -> None:
    """NeoMME stores one LayerNorm for its patches, and its blocks normalise without parameters."""
    shapes = block("layers.{}", ()) | {"patch_embeddings.norm.weight": (64,), "patch_embeddings.norm.bias": (64,)}
    assert label(shapes, None, tmp_path) == "undetermined"


def test_mobilebert_normalises_nothing_unless_its_configuration_says_so(tmp_path: Path) -> None:
    shapes: Shapes = {}
    for layer in range(2):
        at = f"encoder.layer.{layer}"
        for norm in ("bottleneck.input.LayerNorm", "attention.output.LayerNorm", "output.bottleneck.LayerNorm"):
            shapes |= {f"{at}.{norm}.weight": (64,), f"{at}.{norm}.bias": (64,)}
        shapes[f"{at}.attention.self.query.weight"] = (64, 64)
    assert label(shapes, None, tmp_path) == "none"
    assert label(shapes, {"model_type": "mobilebert"}, tmp_path) == "none"
    config = {"model_type": "mobilebert", "normalization_type": "layer_norm"}
    assert label(shapes, config, tmp_path) == "LayerNorm"


def test_a_vision_tower_in_the_file_of_a_language_model_is_judged_by_itself(tmp_path: Path) -> None:
    """As ollama writes them: one GGUF, whose architecture speaks of the language model."""
    shapes: Shapes = {"token_embd.weight": (96, 64), "output_norm.weight": (64,)}
    for layer in range(2):
        shapes |= {f"blk.{layer}.{leaf}.weight": (64,) for leaf in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{layer}.attn_q.weight": (64, 64), f"blk.{layer}.ffn_down.weight": (64, 192)}
        for leaf in ("ln1", "ln2"):
            shapes |= {f"v.blk.{layer}.{leaf}.weight": (48,), f"v.blk.{layer}.{leaf}.bias": (48,)}
        shapes |= {f"v.blk.{layer}.attn_q.weight": (48, 48), f"v.blk.{layer}.ffn_down.weight": (48, 96)}
    keys: dict[str, Value] = {"general.architecture": "gemma3", "gemma3.attention.layer_norm_rms_epsilon": 1e-6}
    keys |= {"gemma3.vision.attention.layer_norm_epsilon": 1e-6}
    record = sniff(Case("ollama", "GGUF", "", "", {}, shapes, keys).write(tmp_path), evidence=("declared", "layout"))
    assert record.label == "RMSNorm"
    assert {part.name: part.label for part in record.components} == {"main": "RMSNorm", "vision": "LayerNorm"}


def test_where_implementations_differ_both_are_said_and_less_is_certain(tmp_path: Path) -> None:
    shapes: Shapes = {"token_embd.weight": (96, 64)}
    for layer in range(2):
        for leaf in ("attn_norm", "ffn_norm"):
            shapes |= {f"blk.{layer}.{leaf}.weight": (64,), f"blk.{layer}.{leaf}.bias": (64,)}
    keys: dict[str, Value] = {"general.architecture": "phimoe", "phimoe.attention.layer_norm_rms_epsilon": 1e-5}
    record = sniff(Case("phimoe", "GGUF", "", "", {}, shapes, keys).write(tmp_path), evidence=("declared", "layout"))
    assert record.label == "RMSNorm"  # what runs the file does so
    assert record.confidence is not None
    assert record.confidence < 0.9
    assert any(e.details.get("disputed") == "LayerNorm" for e in record.evidence)


def test_norms_of_another_kind_inside_a_model_are_named(tmp_path: Path) -> None:
    shapes: Shapes = {"token_embd.weight": (96, 64)}
    for layer in range(2):
        shapes |= {f"blk.{layer}.{leaf}.weight": (64,) for leaf in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{layer}.indexer.k_norm.weight": (32,), f"blk.{layer}.indexer.k_norm.bias": (32,)}
    keys = {"general.architecture": "deepseek32"}
    record = sniff(Case("dsa", "GGUF", "", "", {}, shapes, keys).write(tmp_path), evidence=("declared", "layout"))
    assert record.label == "RMSNorm"
    inner = [site for site in record.norms if "indexer" in site.name]
    assert {(site.role, site.kind) for site in inner} == {("other", "LayerNorm")}


@pytest.mark.parametrize("kind", ["adapter", "imatrix"])
def test_files_that_are_no_models(kind: str, tmp_path: Path) -> None:
    keys = {"general.architecture": "llama", "general.type": kind}
    shapes: Shapes = {"blk.0.attn_q.weight.lora_a": (8, 64), "blk.0.attn_q.weight.lora_b": (64, 8)}
    record = sniff(Case(kind, "GGUF", "", "", {}, shapes, keys).write(tmp_path))
    assert record.label == "none"
    assert kind in record.evidence[0].reason


def test_an_adapter_alone_has_no_norm() -> None:
    generator = np.random.default_rng(0)
    stem = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    arrays = {stem.format(n, side): generator.normal(size=(8, 64)) for n in range(4) for side in "AB"}
    record = sniff(arrays)
    assert record.label == "none"
    assert "base model" in record.evidence[0].reason


def test_embeddings_alone_decide_nothing() -> None:
    record = sniff({"embeddings.word_embeddings.weight": np.random.default_rng(0).normal(size=(500, 64))})
    assert record.label in ("undetermined", "none")


def test_an_epsilon_in_the_configuration_does_not_make_a_batch_norm_network_a_transformer(tmp_path: Path) -> None:
    shapes: Shapes = {}
    for layer in range(3):
        shapes[f"layer.{layer}.conv.weight"] = (32, 32, 3, 3)
        shapes |= {f"layer.{layer}.bn.{leaf}": (32,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    assert label(shapes, {"model_type": "unheard_of", "layer_norm_eps": 1e-3}, tmp_path) == "none"


def test_words_of_layer_norm_families_and_group_norms_make_the_lack_of_a_shift_undecided(tmp_path: Path) -> None:
    """MPT without its configuration (Wqkv), Moonshine (GroupNorm), streaming Moonshine (gamma)."""
    plain = block("blocks.{}", ("input_layernorm", "post_attention_layernorm"))
    folders = iter(tmp_path / str(number) for number in range(9))

    def judged(shapes: Shapes) -> str:
        folder = next(folders)
        folder.mkdir()
        return label(shapes, None, folder)

    assert judged(plain) == "RMSNorm"
    assert judged(plain | {f"blocks.{n}.attn.Wqkv.weight": (192, 64) for n in range(3)}) == "undetermined"
    grouped: Shapes = {"encoder.groupnorm.weight": (64,), "encoder.groupnorm.bias": (64,)}
    assert judged(plain | grouped) == "undetermined"
    served: Shapes = {f"vqmodel.{name}": shape for name, shape in grouped.items()}
    assert judged(plain | served) == "RMSNorm", "that of a tower which serves it says nothing"
    gammas = {name.replace("input_layernorm.weight", "input_layernorm.gamma"): shape for name, shape in plain.items()}
    assert judged(gammas) == "undetermined"
    strange = block("blocks.{}", ("norm_1", "norm_2"))
    assert judged(strange) == "RMSNorm", "gated MLPs came into use with it"
    ungated = {name: shape for name, shape in strange.items() if "gate" not in name}
    assert judged(ungated) == "undetermined", "names that nobody was seen to use"


def test_of_two_networks_with_different_norms_neither_is_taken_for_the_model(tmp_path: Path) -> None:
    """MusicGen: a T5 encoder beside a decoder."""
    shapes = block("text_encoder.layers.{}", ("input_layernorm", "post_attention_layernorm"), d=48, hidden=96)
    shapes |= block("decoder.model.layers.{}", ("self_attn_layer_norm", "final_layer_norm"), bias=True)
    record = sniff(Case("two", "transformers", "", "", {}, shapes).write(tmp_path), evidence=("declared", "layout"))
    assert record.label == "undetermined"
    assert {part.label for part in record.components} == {"LayerNorm", "RMSNorm"}
    assert any("nothing says which" in one.reason for one in record.evidence if one.kind == "verdict")
    assert record.next_steps[0].startswith("take the verdict on the network that you ask for")
    assert not any("--full" in step for step in record.next_steps), "no matrix could tell"


def test_attention_that_reads_norms_makes_them_a_transformers_beside_any_backbone(tmp_path: Path) -> None:
    """RT-DETR: a convolutional backbone with more parameters than the transformer."""
    shapes = block("model.encoder.layers.{}", ("self_attn_layer_norm", "final_layer_norm"), bias=True)
    shapes |= {f"model.backbone.stages.{n}.conv.weight": (128, 128, 3, 3) for n in range(4)}
    assert label(shapes, None, tmp_path) == "LayerNorm"
    (tmp_path / "unet").mkdir()
    shapes |= {f"down_blocks.0.resnets.{n}.norm1.{leaf}": (64,) for n in range(2) for leaf in ("weight", "bias")}
    assert label(shapes, None, tmp_path / "unet") == "undetermined", "in a U-Net the stream is GroupNorm's"


def test_an_epsilon_in_the_configuration_does_not_make_a_convolutional_network_a_transformer(tmp_path: Path) -> None:
    """MobileViT v2: layer_norm_eps, and a GroupNorm called layernorm_before."""
    shapes: Shapes = {}
    for n in range(3):
        at = f"encoder.layer.{n}.transformer.layer.0"
        shapes |= {f"{at}.layernorm_before.{leaf}": (64,) for leaf in ("weight", "bias")}
        shapes |= {f"{at}.attention.qkv_proj.weight": (129, 64, 1, 1), f"{at}.ffn.conv1.weight": (128, 64, 3, 3)}
    assert label(shapes, {"model_type": "unheard_of", "layer_norm_eps": 1e-5}, tmp_path) == "undetermined"
