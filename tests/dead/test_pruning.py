"""Pruned models: the arithmetic alone, every family of the table with transformers, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from click.testing import CliRunner, Result
from numpy.typing import NDArray

import normsniff
from normsniff.checkpoint import TensorInfo
from normsniff.cli import cli
from normsniff.dead import rewriting
from normsniff.dead.directions import basis_of
from normsniff.dead.rewriting import Compensation, Removal
from normsniff.dead.wirings import table
from normsniff.inputs.arrays import from_arrays
from normsniff.kernel.shadow import dead_direction
from normsniff.outputs import new_directory
from tests.helpers.manifest import FIXTURES

Float64 = NDArray[np.float64]
MODEL = FIXTURES / "gpt2-ln"
D = 32

# model type -> class and settings of a small model; all take the names that transformers gives them
_BERT = {"hidden_size": D, "intermediate_size": 48, "max_position_embeddings": 40}
_DECODER = _BERT | {"num_key_value_heads": 2}
_GPT = {"n_embd": D, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 40}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", _BERT),
    "roberta": ("RobertaForMaskedLM", _BERT),
    "xlm-roberta": ("XLMRobertaModel", _BERT),
    "camembert": ("CamembertForSequenceClassification", _BERT),
    "electra": ("ElectraModel", _BERT | {"embedding_size": D}),
    "mpnet": ("MPNetModel", _BERT),
    "distilbert": (
        "DistilBertForMaskedLM",
        {"dim": D, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40},
    ),
    "gpt2": ("GPT2LMHeadModel", _GPT),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", _GPT),
    "gpt_neo": ("GPTNeoForCausalLM", _BERT | {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}),
    "gpt_neox": ("GPTNeoXForCausalLM", _BERT),
    "gptj": ("GPTJForCausalLM", _GPT | {"rotary_dim": 8}),
    "codegen": ("CodeGenForCausalLM", _GPT | {"rotary_dim": 8}),
    "opt": ("OPTForCausalLM", _BERT | {"ffn_dim": 48, "word_embed_proj_dim": D}),
    "biogpt": ("BioGptForCausalLM", _BERT),
    "bloom": ("BloomForCausalLM", {"hidden_size": D, "n_layer": 2, "n_head": 4}),
    "phi": ("PhiForCausalLM", _BERT),
    "cohere": ("CohereForCausalLM", _DECODER),
    "stablelm": ("StableLmForCausalLM", _DECODER),
    "starcoder2": ("Starcoder2ForCausalLM", _DECODER),
    "nemotron": ("NemotronForCausalLM", _DECODER | {"head_dim": 8}),
    "mpt": ("MptForCausalLM", {"d_model": D, "n_layers": 2, "n_heads": 4, "max_seq_len": 40, "expansion_ratio": 2}),
}
_COMMON = {"vocab_size": 120, "num_hidden_layers": 2, "num_attention_heads": 4}


def _tensor(values: NDArray[Any]) -> TensorInfo:
    return from_arrays({"x": values}).tensors["x"]


def _rewritten(edit: Removal | Compensation, dtype: str = "f8") -> Float64:
    stored = np.frombuffer(b"".join(edit.pieces()), dtype)
    return stored.astype(np.float64).reshape(edit.tensor.shape)


def _layer_norm(x: Float64, gamma: Float64, beta: Float64) -> Float64:
    centred = x - x.mean(axis=-1, keepdims=True)
    normed: Float64 = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return gamma * normed + beta


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("zeros", [[], [3], [3, 7, 8]], ids=["alive", "one dead", "three dead"])
@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_a_reader_gives_the_same_without_its_energy_along_v(
    axis: int, zeros: list[int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewriting, "_BLOCK", block)
    generator = np.random.default_rng(0)
    gamma, beta, b = generator.uniform(0.5, 1.5, 20), generator.normal(size=20), generator.normal(size=9)
    gamma[zeros] = 0
    w = generator.normal(size=(9, 20))
    basis = basis_of(dead_direction(gamma), 20)
    removal = Removal(_tensor(w if axis else w.T.copy()), axis, basis)
    after = _rewritten(removal) if axis else _rewritten(removal).T
    bias = _rewritten(Compensation(_tensor(b), removal, basis @ beta)).reshape(9)
    x = _layer_norm(generator.normal(size=(50, 20)), gamma, beta)
    np.testing.assert_allclose(x @ after.T + bias, x @ w.T + b, atol=1e-12)
    np.testing.assert_allclose(after @ basis.T, 0, atol=1e-14)
    assert removal.redundant == 9 * len(basis)
    assert np.linalg.matrix_rank(after) == 9


@pytest.mark.parametrize("axis", [0, 1])
def test_a_norm_does_not_see_that_a_writer_was_centred(axis: int) -> None:
    generator = np.random.default_rng(1)
    a, bias, ones = generator.normal(size=(20, 9)), generator.normal(size=20), np.full((1, 20), 20**-0.5)
    removal = Removal(_tensor(a.T.copy() if axis else a), axis, ones)
    after = _rewritten(removal).T if axis else _rewritten(removal)
    shift = _rewritten(Removal(_tensor(bias), 0, ones)).reshape(20)
    x, h, gamma = generator.normal(size=(50, 20)), generator.normal(size=(50, 9)), generator.uniform(0.5, 1.5, 20)
    np.testing.assert_allclose(
        _layer_norm(x + h @ after.T + shift, gamma, bias), _layer_norm(x + h @ a.T + bias, gamma, bias), atol=1e-12
    )
    np.testing.assert_allclose(after.sum(axis=0), 0, atol=1e-13)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 1e-3), ("float32", 1e-7), ("float64", 1e-15)])
def test_values_are_rounded_to_the_type_that_was_stored(dtype: str, error: float) -> None:
    values = np.random.default_rng(0).normal(size=(6, 5)).astype(dtype)
    removal = Removal(_tensor(values), 1, np.full((1, 5), 5**-0.5))
    expected = values.astype(np.float64) - values.astype(np.float64).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(_rewritten(removal, dtype), expected, atol=2 * error)


def test_what_is_not_finite_is_refused() -> None:
    removal = Removal(_tensor(np.array([[np.inf, 1.0]])), 1, np.full((1, 2), 2**-0.5))
    with pytest.raises(normsniff.Refused, match="not finite"):
        list(removal.pieces())
    too_large = np.array([[65504, -65504, -65504]], np.float16)
    with pytest.raises(normsniff.Refused, match="would not be"):
        list(Removal(_tensor(too_large), 1, np.full((1, 3), 3**-0.5)).pieces())


# --- whole models ----------------------------------------------------------------------------------------------------


def _shaken(model: Any) -> Any:
    """Move every parameter off its initial value, so that nothing is equal by chance."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        norm = any(word in name.lower() for word in ("norm", "ln_"))
        if value.ndim == 1:
            noise = 0.5 * noise if not (norm and name.endswith("weight")) else 0.5 + noise.abs().clamp(max=1)
        else:
            noise = 0.2 * noise + 0.05
        value.data.copy_(noise)
    return model


@pytest.mark.parametrize("model_type", [name for row in table().wiring for name in row.model_types])
def test_every_family_of_the_table_computes_the_same(model_type: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from normsniff.dead.verification import TOLERANCES, compare

    name, settings = FAMILIES[model_type]
    cls = getattr(transformers, name)
    accepted = cls.config_class(**settings, **{k: v for k, v in _COMMON.items() if k not in settings})
    _shaken(cls(accepted)).save_pretrained(tmp_path / "model")
    done = normsniff.prune(tmp_path / "model", tmp_path / "pruned")
    assert len(done.centred) >= 4
    found = compare(tmp_path / "model", tmp_path / "pruned")
    assert found.relative < TOLERANCES["F32"]
    assert found.model == name
    assert normsniff.sniff(tmp_path / "pruned").rewritten_from == "LayerNorm"


@pytest.mark.parametrize("fixture", ["gpt2-ln", "bert-ln", "cohere-ln"])
def test_the_trained_fixtures_compute_the_same(fixture: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from normsniff.dead.verification import compare

    normsniff.prune(FIXTURES / fixture, tmp_path / "pruned")
    assert compare(FIXTURES / fixture, tmp_path / "pruned").relative < 1e-5
    record = normsniff.sniff(tmp_path / "pruned")
    assert record.rewritten_from == "LayerNorm"
    writers = [one.rho for one in record.shadows if one.role == "writer"]
    assert writers
    assert max(writers) < 1e-10
    again = normsniff.prune(tmp_path / "pruned", tmp_path / "twice")
    assert compare(tmp_path / "pruned", tmp_path / "twice").relative < 1e-5
    assert again.redundant  # counted again: what is zero along v is no less redundant


@pytest.mark.parametrize(("kind", "dtype"), [("bfloat16", "BF16"), ("float16", "F16")])
def test_half_precision_is_rounded_once_more(kind: str, dtype: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from normsniff.dead.verification import TOLERANCES, compare

    model = transformers.GPT2LMHeadModel.from_pretrained(MODEL, dtype=getattr(torch, kind))
    model.save_pretrained(tmp_path / "model")
    done = normsniff.prune(tmp_path / "model", tmp_path / "pruned")
    assert done.dtypes == (dtype,)
    assert 0 < compare(tmp_path / "model", tmp_path / "pruned").relative < TOLERANCES[dtype]
    assert normsniff.sniff(tmp_path / "pruned").rewritten_from == "LayerNorm"


def test_minilm_computes_the_same(real_model: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    path = real_model("minilm")
    done = _run(path, "-o", tmp_path / "pruned", "--verify")
    assert done.exit_code == 0, done.output
    assert "58,696 of 22,713,216 parameters were redundant" in done.output
    assert "verified with BertModel" in done.output
    assert normsniff.sniff(tmp_path / "pruned").rewritten_from == "LayerNorm"


# --- files -----------------------------------------------------------------------------------------------------------


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["prune", *map(str, args)])


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """Copy a fixture with other tensors, or another configuration."""

    def change(
        config: dict[str, Any] | None = None,
        tensors: dict[str, Any] | None = None,
        without: str = "",
        base: str = "gpt2-ln",
    ) -> Path:
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(FIXTURES / base, folder)
        stored = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(stored | (config or {})))
        arrays = safetensors.numpy.load_file(folder / "model.safetensors") | (tensors or {})
        kept = {name: array for name, array in arrays.items() if not without or without not in name}
        safetensors.numpy.save_file(kept, folder / "model.safetensors", {"format": "pt"})
        return folder

    return change


def test_a_model_without_its_configuration_is_asked_for_it(changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed()
    (folder / "config.json").unlink()
    refused = _run(folder, "-o", tmp_path / "out")
    assert refused.exit_code == 2
    assert "put the model's config.json beside the file" in refused.output


def test_everything_but_the_rewritten_bytes_is_kept(tmp_path: Path) -> None:
    done = normsniff.prune(MODEL, tmp_path / "pruned.safetensors")
    before = (MODEL / "model.safetensors").read_bytes()
    after = (tmp_path / "pruned.safetensors").read_bytes()
    header = 8 + int.from_bytes(before[:8], "little")
    assert after[:header] == before[:header]
    old, new = safetensors.numpy.load(before), safetensors.numpy.load(after)
    edited = {name for name in old if not np.array_equal(old[name], new[name])}
    assert edited == {*done.centred, *done.projected, *done.compensated}
    assert done.left.keys() == {"transformer.wte.weight"}
    assert done.redundant == 80 + 2 * (64 + 1 + 256 + 1) + 2 * (192 + 256)
    assert done.parameters == sum(array.size for array in old.values())


def test_what_is_streamed_is_what_the_library_would_write(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    shutil.copy(MODEL / "config.json", folder)
    arrays = safetensors.numpy.load_file(MODEL / "model.safetensors")
    safetensors.numpy.save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    normsniff.prune(folder, tmp_path / "pruned.safetensors")
    after = (tmp_path / "pruned.safetensors").read_bytes()
    assert after == safetensors.numpy.save(safetensors.numpy.load(after), {"format": "pt"})
    assert after != (folder / "model.safetensors").read_bytes()


def test_shards_stay_shards(tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    folder.mkdir()
    shutil.copy(MODEL / "config.json", folder)
    arrays = safetensors.numpy.load_file(MODEL / "model.safetensors")
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weight_map = {name: names[i % 2] for i, name in enumerate(arrays)}  # readers and their biases part company
    for file in names:
        safetensors.numpy.save_file({k: arrays[k] for k, at in weight_map.items() if at == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    normsniff.prune(folder, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in folder.iterdir()}
    normsniff.prune(MODEL, tmp_path / "whole.safetensors")
    whole = safetensors.numpy.load_file(tmp_path / "whole.safetensors")
    for file in names:
        for name, array in safetensors.numpy.load_file(tmp_path / "out" / file).items():
            np.testing.assert_array_equal(array, whole[name])
    refused = _run(folder, "-o", tmp_path / "one.safetensors")
    assert refused.exit_code == 2
    assert "name a directory" in refused.output
    (folder / names[1]).unlink()
    refused = _run(folder, "-o", tmp_path / "less")
    assert "1 of 2 shards are missing" in refused.output


def test_embeddings_are_centred_only_where_nothing_reads_them(changed: Callable[..., Path], tmp_path: Path) -> None:
    def left(**config: Any) -> set[str]:
        return set(normsniff.prune(changed(config=config), tmp_path / "x.safetensors").left)

    assert left() == {"transformer.wte.weight"}
    assert left(architectures=None) == {"transformer.wte.weight"}
    assert left(architectures=["GPT2DoubleHeadsModel"]) == {"transformer.wte.weight"}
    assert left(architectures=["GPT2Model"]) == set()
    assert left(tie_word_embeddings=False) == set()
    both = changed(tensors={"lm_head.weight": np.ones((96, 64), np.float32)})
    assert set(normsniff.prune(both, tmp_path / "x.safetensors").left) == {"transformer.wte.weight", "lm_head.weight"}


def test_a_reader_without_a_bias_is_left_if_its_norm_has_a_shift(changed: Callable[..., Path], tmp_path: Path) -> None:
    model = changed(without="mlp.c_fc.bias")
    left = normsniff.prune(model, tmp_path / "x.safetensors").left
    assert {name for name, why in left.items() if "no bias" in why} == {
        f"transformer.h.{i}.mlp.c_fc.weight" for i in (0, 1)
    }


_UNKNOWN = {"transformer.h.0.adapter.weight": np.ones((64, 8), np.float32)}

_TURNED = {  # as torch.nn.Linear stores them; GPT-2 would take the square ones as they are, and be wrong
    f"transformer.h.{i}.{name}.weight": np.ones(shape, np.float32)
    for i in (0, 1)
    for name, shape in (("attn.c_attn", (192, 64)), ("mlp.c_fc", (256, 64)), ("mlp.c_proj", (64, 256)))
}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"base": "llama-rms"}, "RMSNorm does not subtract the mean"),
        ({"config": {"model_type": "llama"}}, "a model that is declared to use LayerNorm"),
        ({"config": {"model_type": "falcon"}}, "the wiring of 'falcon' is not known"),
        ({"config": {"auto_map": {"AutoModel": "x.Y"}}}, "code of its own"),
        ({"config": {"add_cross_attention": True}}, "add_cross_attention = True changes the wiring"),
        ({"config": {"quantization_config": {"bits": 8}}}, "quantised again"),
        ({"config": {"n_layer": 3}}, "2 blocks, where n_layer = 3"),
        ({"tensors": _TURNED}, "along another axis"),
        ({"tensors": _UNKNOWN}, "block 0: adapter is missing or not known"),
        ({"tensors": {"transformer.wx.weight": np.ones((9, 64), np.float32)}}, "wx is not known"),
        ({"tensors": {"other.h.0.ln_1.weight": np.ones(64, np.float32)}}, "2 stacks of blocks"),
        ({"without": "ln_f"}, "the last norm, ln_f, is not there"),
        ({"without": "h.1.ln_2"}, "block 1: ln_2 is missing"),
        ({"tensors": {"transformer.h.0.mlp.c_fc.weight": np.ones((64, 256), np.int8)}}, "is not known"),
        ({"tensors": {"transformer.h.0.ln_1.weight": np.full(64, np.nan, np.float32)}}, "not finite"),
        ({"tensors": {"transformer.h.0.mlp.c_proj.weight": np.full((256, 64), np.inf, np.float32)}}, "not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_proven_is_refused(
    change: dict[str, Any], why: str, changed: Callable[..., Path], tmp_path: Path
) -> None:
    refused = _run(changed(**change), "-o", tmp_path / "out")
    assert refused.exit_code == 2
    assert why in refused.output
    assert "refused" in refused.output
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["changed"]


def test_other_formats_and_bare_files_are_refused(tmp_path: Path) -> None:
    assert "only safetensors" in _run(FIXTURES / "gpt2-ln.Q8_0.gguf", "-o", tmp_path / "x.safetensors").output
    shutil.copy(MODEL / "model.safetensors", tmp_path / "bare.safetensors")
    refused = _run(tmp_path / "bare.safetensors", "-o", tmp_path / "x.safetensors")
    assert "refused" in refused.output


def test_the_model_itself_is_never_written_over(changed: Callable[..., Path], tmp_path: Path) -> None:
    model = changed()
    before = (model / "model.safetensors").read_bytes()
    (tmp_path / "link.safetensors").symlink_to(model / "model.safetensors")
    for output in (model / "model.safetensors", tmp_path / "link.safetensors", model):
        assert _run(model, "-o", output).exit_code == 2
    assert (model / "model.safetensors").read_bytes() == before


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), new_directory(tmp_path / "x") as folder:
        (folder / str(1 // 0)).touch()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    full = _run(MODEL, "-o", tmp_path / "out")
    assert full.exit_code == 2
    assert "No space left" in full.output
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_what_it_did(tmp_path: Path) -> None:
    plain = _run(MODEL, "-o", tmp_path / "a.safetensors")
    assert plain.exit_code == 0
    assert "1,620 of 111,360 parameters were redundant" in plain.output
    assert "left as it is: transformer.wte.weight" in plain.output
    record = json.loads(_run(MODEL, "-o", tmp_path / "b.safetensors", "--json").stdout)
    assert (record["redundant"], record["difference"], len(record["projected"])) == (1620, None, 4)


def test_a_difference_is_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from normsniff.dead import verification

    found = verification.Difference(largest=1.0, output=2.0, tokens=64, model="M")
    monkeypatch.setattr(verification, "compare", lambda *_: found)
    done = _run(MODEL, "-o", tmp_path / "a.safetensors", "--verify")
    assert done.exit_code == 1
    assert "more than rounding explains" in done.output


def test_the_tokenizer_comes_along_and_the_rest_is_named(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    texts = {"tokenizer.json": "{}", "merges.txt": "a b", "vocab.json": "{}", "LICENSE": "free", "bpe.tiktoken": "x"}
    for name, text in texts.items():
        (model / name).write_text(text)
    others = ("README.md", "pytorch_model.bin", "modules.safetensors")
    for name in (*others, ".hidden"):
        (model / name).touch()
    (model / "onnx").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (model / "vocab.txt").symlink_to(tmp_path / "secret.txt")
    done = normsniff.prune(model, tmp_path / "out")
    assert set(done.copied) == texts.keys()
    assert set(done.left_behind) == {*others, "onnx", "vocab.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*texts, "config.json", "model.safetensors"}
    assert all((tmp_path / "out" / name).read_text() == text for name, text in texts.items())
    said = CliRunner().invoke(cli, ["prune", str(model), "-o", str(tmp_path / "one.safetensors")]).output
    assert "left behind: config.json, LICENSE, bpe.tiktoken, merges.txt, tokenizer.json, vocab.json" in said
