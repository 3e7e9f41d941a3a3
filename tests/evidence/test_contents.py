"""Files that hold no network say what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from normsniff import sniff
from normsniff.record import Classification

D = 32


def made(*shapes: tuple[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(0)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes}


def reasons(record: Classification) -> str:
    return " | ".join(one.reason for one in record.evidence)


ADAPTER = [
    (f"layers.{n}.q_proj.lora_{side}.weight", (4, D) if side == "A" else (D, 4)) for n in (0, 1) for side in "AB"
]
ADAM: list[tuple[str, tuple[int, ...]]] = [
    (f"state.{n}.{what}", shape)
    for n, shape in enumerate([(D, D), (D,), (D,), (4 * D, D), (4 * D,)])
    for what in ("exp_avg", "exp_avg_sq")
]
STEPS = [(f"state.{n}.step", ()) for n in range(5)]
NAMED_ADAM = [(f"optimizer.state.layers.{n}.norm.weight.exp_avg", (D,)) for n in range(3)]


def test_an_adapter_has_its_norms_in_its_base_model() -> None:
    record = sniff(made(*ADAPTER))
    assert record.label == "none"
    assert "4 of 4 tensors are an adapter's" in reasons(record)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([*ADAM, *STEPS], "an optimiser remembers"),
        (NAMED_ADAM, "an optimiser remembers"),
        ([(f"direction.{n}", (D,)) for n in range(1, 6)], "directions to add"),
        ([("word_embeddings", (1000, D))], "1 table of numbers"),
        ([("clip_l", (4, D)), ("clip_g", (4, 2 * D))], "2 tables of numbers"),
        ([("bias", (100,))], "1 vector and no matrix"),
        ([("a.weight", (1, D)), ("a.bias", (1,))], "1 vector and no matrix"),
    ],
)
def test_what_is_no_network_is_named_and_gets_no_label(shapes: list[tuple[str, tuple[int, ...]]], said: str) -> None:
    record = sniff(made(*shapes))
    assert record.label == "undetermined"
    assert said in reasons(record)
    assert record.next_steps == ["name the file that holds the network itself"]


def test_its_matrices_are_not_searched_for_a_shadow() -> None:
    record = sniff(made(*ADAM, *STEPS))
    assert record.shadows == []
    assert record.rewritten_from is None


def test_a_network_beside_a_little_of_an_optimiser_stays_one() -> None:
    norms = [(f"layers.{n}.norm{m}.{leaf}", (D,)) for n in range(3) for m in (1, 2) for leaf in ("weight", "bias")]
    matrices = [(f"layers.{n}.mlp.{leaf}.weight", (4 * D, D)) for n in range(3) for leaf in ("fc1", "fc3")]
    assert sniff(made(*norms, *matrices, ("state.0.exp_avg", (D,)))).label == "LayerNorm"


@pytest.mark.parametrize(("architecture", "label"), [("llama", "RMSNorm"), ("nobody", "undetermined")])
def test_a_vocabulary_has_the_norm_of_its_architecture_or_none_that_is_known(
    architecture: str, label: str, tmp_path: Path
) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "vocab.gguf", architecture)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    record = sniff(tmp_path / "vocab.gguf")
    assert record.label == label
    assert "a vocabulary and no tensor" in reasons(record)


def test_parameters_alone_know_no_names() -> None:
    assert "optimiser" not in reasons(sniff(made(*ADAM), evidence=["kernel"]))
