"""The made files of every kind, what was said of them, and what is counted from that."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.conformance.kinds import markdown
from calibration.kinds.count import Said, counted, load
from calibration.kinds.files import File, _of_parts, _of_torch
from normsniff import evidence, sniff

KEPT = load()
BY_NAME = {(row.name, row.container): row for row in KEPT}


def test_the_committed_table_has_every_kind_and_nothing_wrong() -> None:
    kinds = {row.kind for row in KEPT}
    assert {"CNN", "RNN", "GNN", "mixer", "image to image", "trees and estimators", "transformer", "adapter"} <= kinds
    assert {"optimiser state", "vocabulary", "embeddings", "mixed stream"} <= kinds
    assert [row for row in KEPT if row.outcome == "wrong"] == []


def test_most_are_told() -> None:
    """A table of abstentions would pass the test above."""
    assert sum(row.outcome == "right" for row in KEPT) > 0.8 * len(KEPT)


@pytest.mark.parametrize("rule", ["computed none", "computed mixed", "content none"])
def test_what_is_shipped_follows_from_the_table(rule: str) -> None:
    shipped = evidence.load_weights().rules[rule]
    assert (shipped.right, shipped.wrong) == counted(rule, "name")


def test_a_network_counts_once_and_a_wrong_claim_of_its_kind_spoils_the_kind() -> None:
    def row(name: str, kind: str, truth: str, container: str = "weights") -> Said:
        return Said(name, kind, container, truth, "none", "none", "layout none")

    rows = [row("a", "CNN", "none"), row("a", "CNN", "none", "graph"), row("b", "CNN", "LayerNorm"),
            row("c", "RNN", "none")]  # fmt: skip
    assert counted("layout none", "name", rows) == (2, 1)
    assert counted("layout none", "kind", rows) == (1, 1)
    assert counted("layout mixed", "name", rows) == (0, 0)


def test_outcomes_are_tabled_by_kind_and_container() -> None:
    rows = [Said("a", "CNN", "graph", "none", "none", "", ""), Said("b", "CNN", "graph", "none", "mixed", "", "")]
    assert "| CNN | graph | 2 | 1 | 1 | 0 | 0 |" in markdown(rows)
    assert "| all | | 2 | 1 | 1 | 0 | 0 |" in markdown(rows)


def holds(file: File, folder: Path) -> None:
    record = sniff(file.write(folder))
    assert record.label == BY_NAME[file.name, file.container].label, [one.reason for one in record.evidence]


def test_what_holds_no_network_is_said_again_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    for at, file in enumerate(_of_parts()):
        (tmp_path / str(at)).mkdir()
        holds(file, tmp_path / str(at))


@pytest.mark.parametrize("kind", ["GNN", "RNN", "mixed stream", "image to image"])
def test_some_networks_are_said_again_as_they_were(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    for at, file in enumerate(one for one in _of_torch() if one.kind == kind):
        (tmp_path / str(at)).mkdir()
        holds(file, tmp_path / str(at))
