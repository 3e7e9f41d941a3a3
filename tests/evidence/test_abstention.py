"""Every abstention says what was looked for, found and not understood, and what would help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import normsniff
from tests.helpers.faults import save

D = 32


def model(**more: tuple[int, ...]) -> dict[str, np.ndarray]:
    shapes = {f"layers.{n}.mlp.{leaf}.weight": shape for n in range(3) for leaf, shape in
              (("up_proj", (4 * D, D)), ("down_proj", (D, 4 * D)))} | more  # fmt: skip
    draw = np.random.default_rng(0)
    return {name.replace("__", "."): draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_an_abstention_says_what_was_looked_for_and_found() -> None:
    record = normsniff.sniff(model(layers__0__thing__zzz=(D,)))
    assert record.label == "undetermined"
    (said,) = [e.reason for e in record.evidence if e.kind == "verdict" and e.reason.startswith("looked for")]
    assert "names of norms" in said
    assert "6 matrices" in said
    assert "1 thing not understood" in said
    assert record.account is not None
    assert record.account.unexplained == 1
    assert record.account.names[0].startswith("layers.0.thing.zzz")
    assert record.next_steps[0] == "put the model's config.json beside the file"
    assert any("layers.0.thing.zzz" in step for step in record.next_steps)


def test_a_label_has_no_next_steps() -> None:
    record = normsniff.sniff(model(**{f"layers__{n}__norm__{p}": (D,) for n in range(3) for p in ("weight", "bias")}))
    assert (record.label, record.next_steps) == ("LayerNorm", [])


def test_empty_tensors_are_those_of_a_run_that_keeps_its_weights_elsewhere() -> None:
    record = normsniff.sniff({f"layers.{n}.norm.weight": np.zeros((0,), np.float32) for n in range(4)})
    assert record.label == "undetermined"
    assert any("all 4 tensors are empty" in e.reason for e in record.evidence)
    assert "zero_to_fp32" in record.next_steps[0]


@pytest.mark.parametrize("kinds", [("kernel",), ("layout",), ("declared", "layout")])
def test_evidence_that_was_left_out_is_a_next_step(kinds: tuple[str, ...]) -> None:
    record = normsniff.sniff(model(), evidence=kinds)  # type: ignore[arg-type]  # plain strings
    assert record.next_steps
    assert ("leave --evidence out" in record.next_steps[0]) is (kinds != ("declared", "layout"))


def test_nothing_left_over_is_said_in_words_whatever_was_looked_at() -> None:
    record = normsniff.sniff({f"x{i}": array for i, array in enumerate(model(head__bias=(7,)).values())})
    assert record.label == "undetermined"
    said = " ".join(e.reason for e in record.evidence)
    assert "0 things" not in said


@pytest.mark.parametrize("renamed", [True, False])
def test_norms_that_are_not_recognised_are_not_said_to_be_absent(renamed: bool, tmp_path: Path) -> None:
    state = model(**({f"layers__{n}__zzz": (D,) for n in range(3)} if renamed else {}))
    record = normsniff.sniff(save(state, {"model_type": "llama"}, tmp_path / "model"))
    (said,) = [e.reason for e in record.evidence if e.kind == "declared"]
    assert ("none of its norms was recognised" in said) is renamed
    assert ("stores none of its norms" in said) is not renamed
