"""The table of code bases outside transformers, the files made of it, and how they are scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.conformance.open_world import Answer, answer, listed, markdown, replaced
from calibration.open_world.build import arrays, write
from calibration.open_world.table import Row, Tensor, load


def _row(**changed: object) -> Row:
    facts = {
        "name": "a", "source": "someone/something", "commit": "0", "path": "model.py", "network": "transformer",
        "container": "safetensors", "truth": "LayerNorm", "shifts": "stored", "norms": {"LayerNorm": 1}, "group": "x",
        "tensors": {"norm.weight": Tensor((8,), 1.0), "norm.bias": Tensor((8,), 0.0), "up.weight": Tensor((16, 8))},
    }  # fmt: skip
    return Row(**{**facts, **changed})  # type: ignore[arg-type]


def _named(name: str) -> Row:
    return next(row for row in load() if row.name == name)


def test_more_than_eighty_code_bases_are_known_each_with_the_commit_that_was_read() -> None:
    rows = load()
    assert len({row.source for row in rows}) >= 80
    assert all(len(row.commit) == 40 and row.path for row in rows if "/" in row.source)


def test_both_halves_have_all_common_labels_and_share_no_code_base() -> None:
    seen, unseen = load("seen"), load("unseen")
    assert not {row.source for row in seen} & {row.source for row in unseen}
    for half in (seen, unseen):
        assert {"LayerNorm", "RMSNorm", "none"} <= {row.truth for row in half}
        assert len(half) >= 40


def test_a_half_never_changes() -> None:
    assert _row(source="karpathy/nanoGPT").half == "unseen"
    assert _row(source="lucidrains/x-transformers").half == "seen"


def test_patterns_are_filled_in_block_by_block() -> None:
    names = list(_named("mingpt").tensors)
    blocks = [int(name.split(".")[2]) for name in names if name.startswith("transformer.h.")]
    assert blocks == sorted(blocks)
    assert set(blocks) == {0, 1, 2}
    assert "transformer.h.2.ln_2.bias" in names


def test_fresh_weights_keep_their_constants_and_trained_ones_leave_them() -> None:
    fresh, trained = arrays(_row(), "fresh"), arrays(_row(), "trained")
    assert np.all(fresh["norm.weight"] == 1)
    assert np.all(fresh["norm.bias"] == 0)
    assert np.ptp(trained["norm.weight"]) > 0
    assert np.all(trained["norm.bias"] != 0)


def test_a_buffer_is_not_trained() -> None:
    row = _row(tensors={"norm.beta": Tensor((8,), 0.0, trained=False)})
    assert np.all(arrays(row, "trained")["norm.beta"] == 0)


def test_an_unknown_container_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no container"):
        write(_row(container="stone"), tmp_path)


@pytest.mark.parametrize("container", ["safetensors", "npz", "flax", "h5", "flax stream"])
def test_a_file_is_made_in_every_container(container: str, tmp_path: Path) -> None:
    assert write(_row(container=container), tmp_path).exists()


def test_a_plain_vision_transformer_is_labelled_right() -> None:
    assert answer(_named("timm-vit")).outcome == "right"


def test_outcomes_tell_sure_errors_from_others() -> None:
    def of(label: str | None, confidence: float | None) -> str:
        return Answer(_row(), "trained", label, confidence, ()).outcome

    assert of("LayerNorm", 0.9) == "right"
    assert of("RMSNorm", 0.9) == "wrong, ≥ 0.9"
    assert of("RMSNorm", 0.89) == "wrong"
    assert of("undetermined", None) == "abstained"
    assert of(None, None) == "not read"


def test_the_unseen_half_is_counted_and_never_listed() -> None:
    found = [Answer(_row(source="karpathy/nanoGPT"), "trained", "RMSNorm", 0.95, ("because",))]
    assert "| unseen | trained | LayerNorm | 1 | 0 | 0 | 1 | 0 | 0 |" in markdown(found)
    assert listed(found) == ""


def test_a_table_is_replaced_between_its_marks_only() -> None:
    text = "before\n<!-- open world: begin -->\nold\n<!-- open world: end -->\nafter\n"
    assert replaced(text, "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="marks"):
        replaced("nothing", "new")
