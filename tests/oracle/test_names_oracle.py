"""Wiring by names against the truth.

Tiny transformers models are run, and every linear layer is asked whose output it reads.
"""

from __future__ import annotations

from typing import Any

import pytest

from normsniff.anatomy.names import describe as names
from normsniff.anatomy.parts import Anatomy
from normsniff.checkpoint import Checkpoint, TensorInfo
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent

pytestmark = pytest.mark.filterwarnings("ignore")

_SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80,
    "pad_token_id": 0,
}  # fmt: skip
_GPT2 = {"vocab_size": 97, "n_embd": 48, "n_layer": 2, "n_head": 4}
_BART = {
    "vocab_size": 97, "d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80,
}  # fmt: skip
_T5 = {"vocab_size": 97, "d_model": 48, "d_kv": 16, "d_ff": 80, "num_layers": 2, "num_heads": 4}
_HEADS = ("transform.dense", "lm_head.dense", "vocab_transform", "head.dense")  # between the stream and the unembedding

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("GPT2LMHead", _GPT2),
    ("OpenAIGPTLMHead", _GPT2),
    ("BertForMaskedLM", _SIZES),
    ("EsmForMaskedLM", {**_SIZES, "mask_token_id": 2}),
    ("XLMWithLMHead", {"vocab_size": 97, "emb_dim": 48, "n_layers": 2, "n_heads": 4}),
    ("FalconForCausalLM", {**_SIZES, "new_decoder_architecture": True, "num_kv_heads": 2}),
    ("LlamaForCausalLM", {**_SIZES, "num_key_value_heads": 2}),
    ("Gemma2ForCausalLM", {**_SIZES, "num_key_value_heads": 2, "head_dim": 16}),
    ("Olmo2ForCausalLM", {**_SIZES, "num_key_value_heads": 2}),
    ("Glm4ForCausalLM", {**_SIZES, "num_key_value_heads": 2, "head_dim": 16}),
    ("T5ForConditionalGeneration", _T5),
    ("BartForConditionalGeneration", _BART),
    ("MBartForConditionalGeneration", _BART),
]


def built(cls: str, sizes: dict[str, Any]) -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family = next(
        cls[: -len(end)]
        for end in ("WithLMHead", "LMHead", "ForMaskedLM", "ForCausalLM", "ForConditionalGeneration")
        if cls.endswith(end)
    )
    torch.manual_seed(0)
    config = getattr(transformers, family + "Config")(**sizes)
    return getattr(transformers, cls if "For" in cls else cls + "Model")(config).eval()


def norms_read(model: Any) -> dict[str, set[str]]:
    """Run the model once; return for every weight of a linear layer the norms whose output the layer was given."""
    torch = pytest.importorskip("torch")
    made_by: dict[tuple[int, int], str] = {}
    reads: dict[str, set[str]] = {}
    alive: list[Any] = []  # so that no address is used twice

    def remember(path: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if torch.is_tensor(output):
                made_by[output.data_ptr(), output.numel()] = path
                alive.append(output)

        return hook

    def ask(path: str) -> Any:
        def hook(_module: Any, inputs: Any) -> None:
            alive.append(inputs[0])
            origin = made_by.get((inputs[0].data_ptr(), inputs[0].numel()))
            if origin is not None:
                reads.setdefault(path + ".weight", set()).add(origin)

        return hook

    for path, module in model.named_modules():
        kind = type(module).__name__
        if "Norm" in kind:
            module.register_forward_hook(remember(path))
        elif kind == "Conv1D" or kind.endswith("Linear"):
            module.register_forward_pre_hook(ask(path))
    ids = torch.randint(3, 90, (1, 7))
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    with torch.no_grad():
        model(**inputs)
    return reads


def described(model: Any) -> Anatomy:
    source = BytesSource(b"")
    tensors = {
        name: TensorInfo(name, "F32", tuple(value.shape), Extent(source, 0, 0))
        for name, value in model.named_parameters()  # a tied weight once, as a file has it
    }
    return names.describe(Checkpoint("safetensors", None, tensors, (source,), ""))


@pytest.mark.parametrize(("cls", "sizes"), MODELS, ids=[cls for cls, _ in MODELS])
def test_every_reader_is_wired_to_the_norm_that_it_reads(cls: str, sizes: dict[str, Any]) -> None:
    model = built(cls, sizes)
    reads, anatomy = norms_read(model), described(model)
    found = {m.tensor.name: m for m in anatomy.matrices}
    stored = {name for name, _ in model.named_parameters()}
    transposed = {f"{path}.weight" for path, module in model.named_modules() if type(module).__name__ == "Conv1D"}

    assert {site.name for site in anatomy.sites} == {
        path for path, module in model.named_modules() if "Norm" in type(module).__name__
    }
    assert all(site.kind is None for site in anatomy.sites)
    wired = {name for name in reads if name in stored and not any(head in name for head in _HEADS)}
    for name in wired:
        matrix = found[name]
        assert matrix.role in ("reader", "unembedding"), name
        assert matrix.axis == (0 if name in transposed else 1), name
        assert matrix.site is not None, name
        assert anatomy.sites[matrix.site].name in reads[name], name
    assert wired or cls == "Olmo2ForCausalLM"
    for name, matrix in found.items():
        if matrix.role == "writer":
            assert matrix.axis == (1 if name in transposed else 0), name
        if cls == "Olmo2ForCausalLM" and matrix.role == "reader":
            assert matrix.site is None, name
