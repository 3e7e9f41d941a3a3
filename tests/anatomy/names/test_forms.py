"""Forms of blocks: every row of the table, by the names of a model that has it."""

from __future__ import annotations

import pytest

from normsniff.anatomy.names import describe as names
from normsniff.anatomy.names.forms import FORMS, form_of
from normsniff.anatomy.parts import Anatomy
from normsniff.checkpoint import Checkpoint, TensorInfo
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent

D = 8
NOWHERE = BytesSource(b"")

# example -> norms of a block, norm outside of the blocks, and what attention, MLP and cross-attention of block 1 read
# (`-`: no norm; `<`: a norm of block 0)
ROWS: dict[str, tuple[str, str, str, str, str]] = {
    "GPT-2": ("ln_1 ln_2", "ln_f", "ln_1", "ln_2", "-"),
    "RoBERTa-PreLayerNorm": (
        "attention.LayerNorm intermediate.LayerNorm", "LayerNorm", "attention.LayerNorm", "intermediate.LayerNorm", "-",
    ),
    "wav2vec 2.0": ("layer_norm final_layer_norm", "", "<final_layer_norm", "layer_norm", "-"),
    "ModernBERT, block 0": ("mlp_norm", "final_norm", "-", "mlp_norm", "-"),
    "Parakeet": ("norm_self_att norm_out", "", "norm_self_att", "norm_out", "-"),
    "Falcon-40B as GGUF": ("attn_norm attn_norm_2", "output_norm", "attn_norm_2", "attn_norm", "-"),
    "Llama": ("input_layernorm post_attention_layernorm", "norm", "input_layernorm", "post_attention_layernorm", "-"),
    "Llama, MLP unnormed": ("input_layernorm post_self_attn_layernorm", "norm", "input_layernorm", "-", "-"),
    "Cohere, GPT-J": ("input_layernorm", "norm", "input_layernorm", "input_layernorm", "-"),
    "ESM": ("attention.LayerNorm LayerNorm", "emb_layer_norm_after", "attention.LayerNorm", "LayerNorm", "-"),
    "T5, Mamba": ("layer_norm", "final_layer_norm", "layer_norm", "layer_norm", "layer_norm"),
    "T5, cross named": ("layer_norm ln_cross_attn", "final_layer_norm", "layer_norm", "layer_norm", "ln_cross_attn"),
    "BERT": (
        "attention.output.LayerNorm output.LayerNorm", "", "<output.LayerNorm", "attention.output.LayerNorm", "-",
    ),
    "Fun-ASR, block 0": ("post_attention_layernorm", "", "<post_attention_layernorm", "post_attention_layernorm", "-"),
    "FNet, SqueezeBERT": ("output.LayerNorm", "", "<output.LayerNorm", "-", "-"),
}  # fmt: skip


def described(norms: str, outside: str) -> Anatomy:
    shapes: dict[str, tuple[int, ...]] = {f"{outside}.weight": (D,)} if outside else {}
    for at in range(2):
        block = f"layers.{at}."
        shapes |= {f"{block}{norm}.weight": (D,) for norm in norms.split()}
        shapes |= {
            block + "self_attn.q_proj.weight": (D, D),
            block + "cross_attn.q_proj.weight": (D, D),
            block + "mlp.up_proj.weight": (20, D),
        }
    tensors = {name: TensorInfo(name, "F32", shape, Extent(NOWHERE, 0, 0)) for name, shape in shapes.items()}
    return names.describe(Checkpoint("safetensors", None, tensors, (NOWHERE,), ""))


def test_every_row_has_its_example_here() -> None:
    assert [form.example for form in FORMS] == list(ROWS)


@pytest.mark.parametrize("example", ROWS)
def test_a_block_is_read_as_its_row_says(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    norms, outside, *expected = ROWS[example]
    taken: list[str] = []

    def remember(slots: object, returned: object) -> object:
        form = form_of(slots, returned)  # type: ignore[arg-type]  # passed on as it comes
        taken.append("" if form is None else form.example)
        return form

    monkeypatch.setattr("normsniff.anatomy.names.readings.form_of", remember)
    anatomy = described(norms, outside)
    assert taken == [example] * 2
    sites = {m.tensor.name: m.site for m in anatomy.matrices}
    readers = ("self_attn.q_proj", "mlp.up_proj", "cross_attn.q_proj")
    found = [sites[f"layers.1.{reader}.weight"] for reader in readers]
    read = ["-" if site is None else anatomy.sites[site].name for site in found]
    assert read == [
        norm if norm == "-" else f"layers.0.{norm[1:]}" if norm[0] == "<" else f"layers.1.{norm}" for norm in expected
    ]


def test_cross_attention_in_a_post_norm_block_reads_the_norm_of_self_attention() -> None:
    norms = "attention.output.LayerNorm crossattention.output.LayerNorm output.LayerNorm"
    anatomy = described(norms, "")
    sites = {m.tensor.name: m.site for m in anatomy.matrices}
    read = [sites[f"layers.1.{reader}.weight"] for reader in ("cross_attn.q_proj", "mlp.up_proj", "self_attn.q_proj")]
    assert [anatomy.sites[site].name for site in read if site is not None] == [
        "layers.1.attention.output.LayerNorm", "layers.1.crossattention.output.LayerNorm", "layers.0.output.LayerNorm",
    ]  # fmt: skip


def test_norms_on_the_way_back_into_the_stream_are_read_by_nobody() -> None:
    """OLMo 2: no row fits."""
    assert form_of(["post-attention", "post-mlp"], ["post-attention", "post-mlp"]) is None
    anatomy = described("post_attention_layernorm post_feedforward_layernorm", "norm")
    assert {m.site for m in anatomy.matrices} == {None}
