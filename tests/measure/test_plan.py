"""What is read: exactly what the plan says, little of a large model, and enough to find a contradiction."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

import normsniff
from benchmarks import synthetic
from normsniff import decode
from normsniff.anatomy.parts import Anatomy, Matrix
from normsniff.checkpoint import TensorInfo
from normsniff.cli import cli
from normsniff.formats import read_checkpoint
from normsniff.limits import Limits
from normsniff.measure.plan import Plan
from normsniff.measure.samples import select
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent
from tests.helpers.manifest import FIXTURES


class Announced(BytesSource):
    """Remembers what it was told to fetch and what was then read."""

    def __init__(self, data: bytes, gap: int) -> None:
        super().__init__(data)
        self.gap = gap
        self.told: set[int] = set()
        self.read: set[int] = set()

    def read_at(self, offset: int, n: int) -> memoryview:
        self.read.update(range(offset, offset + n))
        return super().read_at(offset, n)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        for offset, n in ranges:
            self.told.update(range(offset, offset + n))


def positions(plan: Plan) -> Iterator[int]:
    for step in plan.steps:
        assert step.what == "header" or step.bytes >= sum(r.length * r.count for r in step.ranges)
        for one in step.ranges:
            for i in range(one.count):
                yield from range(one.offset + i * one.stride, one.offset + i * one.stride + one.length)


@pytest.mark.parametrize("gap", [0, 300, 1 << 20])
@pytest.mark.parametrize(
    "name", ["llama-rms/model.safetensors", "gpt2-ln.Q4_K.gguf", "gpt2-ln.int8.onnx", "mixed.bf16.safetensors"]
)
def test_sniff_reads_what_the_plan_says_and_says_so_before(
    name: str, gap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from normsniff import pipeline
    from normsniff.inputs import opening

    source = Announced((FIXTURES / name).read_bytes(), gap)
    monkeypatch.setattr(opening, "open_source", lambda *_: read_checkpoint(source, Limits()))
    plan = pipeline.plan(b"", budget=10**9)
    header = set(source.read)
    assert source.told == set()
    record = pipeline.sniff(b"")
    assert source.read - header <= source.told, "nothing is read that was not announced"
    assert source.told <= set(positions(plan)), "nothing is announced that was not planned"
    assert record.bytes_read == len(source.read)
    if record.matrices_left == 0:
        assert source.told == set(positions(plan))


def test_a_batch_is_announced_before_any_of_it_is_read() -> None:
    source = Announced((FIXTURES / "gpt2-ln.bf16.safetensors").read_bytes(), 0)
    from normsniff.anatomy import describe
    from normsniff.measure.shadows import read_vectors

    anatomy = describe(read_checkpoint(source, Limits()))
    asked: list[int] = []
    source.prefetch = lambda ranges: asked.append(len(ranges))  # type: ignore[method-assign]
    read_vectors(anatomy, Limits())
    assert asked == [10], "all scales and shifts at once"


def test_the_budget_bounds_the_plan() -> None:
    small = normsniff.plan(FIXTURES / "llama-rms", budget=50_000)
    assert sum(step.bytes for step in small.steps if step.batch) <= 50_000
    none = normsniff.plan(FIXTURES / "llama-rms", budget=10)
    assert not any(step.batch for step in none.steps)
    assert "too small" in none.notes[0]


def test_full_plans_every_matrix_whole() -> None:
    plan = normsniff.plan(FIXTURES / "llama-rms", budget=None)
    assert plan.least_bytes == plan.most_bytes
    assert plan.most_bytes == pytest.approx(plan.file_size or 0, rel=0.02)


def test_batches_have_both_roles_and_all_shapes_over_the_depth() -> None:
    plan = normsniff.plan(FIXTURES / "llama-rms" / "model.safetensors", budget=10**9)
    first = [step for step in plan.steps if step.batch == 1]
    assert {step.role for step in first} == {"writer", "reader", "embedding", "unembedding"}
    writers = [step for step in first if step.role == "writer"]
    assert len({step.layer for step in writers}) > 1
    assert {"o_proj" in (step.tensor or "") for step in writers} == {True, False}


def test_a_model_of_seven_billion_parameters_costs_less_than_half_a_percent(tmp_path: Path) -> None:
    """13.5 GB of holes, with trained-looking weights where the first batch reads."""
    path = synthetic.write_llama(tmp_path, *synthetic.LLAMAS["13 GB"])
    plan = normsniff.plan(path)
    assert plan.file_size == pytest.approx(13.5e9, rel=0.01)
    assert {step.role for step in plan.steps if step.batch == 1} >= {"writer", "reader"}
    record = normsniff.sniff(path)
    assert record.label == "RMSNorm", record.evidence
    assert (record.confidence or 0) > 0.99
    assert record.matrices_left
    assert (record.bytes_read or math.inf) < 0.003 * (record.file_size or 0)
    assert (record.bytes_read or 0) <= sum(step.bytes for step in plan.steps if step.batch <= 1) + 8192
    assert plan.least_bytes < 10_000_000 < (record.bytes_read or 0)  # were there nothing to find


@pytest.mark.parametrize(("weights", "config"), [("gpt2-ln", "llama-rms"), ("llama-rms", "gpt2-ln")])
def test_stopping_early_does_not_hide_a_declaration_that_the_weights_defy(
    weights: str, config: str, tmp_path: Path
) -> None:
    shutil.copy(FIXTURES / config / "config.json", tmp_path)
    shutil.copy(FIXTURES / weights / "model.safetensors", tmp_path)
    early, full = (normsniff.sniff(tmp_path, budget=budget) for budget in (10**9, None))
    for record in (early, full):
        assert ("declared", "kernel") in {c.between for c in record.contradictions} or record.matrices_left == 0
    assert early.label == full.label


def test_reading_goes_on_to_the_end_while_the_kernel_is_silent() -> None:
    record = normsniff.sniff(FIXTURES / "random-ln" / "model.safetensors")
    assert (record.label, record.matrices_left) == ("LayerNorm", 0)
    assert normsniff.sniff(FIXTURES / "gpt2-ln" / "model.safetensors").matrices_left


def test_the_command_prints_the_plan() -> None:
    path = str(FIXTURES / "gpt2-ln.Q8_0.gguf")
    text = CliRunner().invoke(cli, ["plan", path])
    assert text.exit_code == 0
    assert "blk.0.attn_output.weight" in text.output
    assert "of 142.4 KB" in text.output
    line = CliRunner().invoke(cli, ["plan", "--json", path]).output
    plan = msgspec.json.decode(line, type=Plan)
    assert plan == normsniff.plan(path)
    assert CliRunner().invoke(cli, ["plan", "no such file"]).exit_code == 2
    full = msgspec.json.decode(CliRunner().invoke(cli, ["plan", "--json", "--full", path]).output, type=Plan)
    assert full.least_bytes == full.most_bytes >= plan.most_bytes > plan.least_bytes


def test_columns_are_whole_quantisation_blocks_or_start_on_pages() -> None:
    quantised = TensorInfo("q", "Q4_K", (4096, 11008), Extent(BytesSource(b""), 100, 0))
    (block,) = decode.blocks(quantised, 0, Limits(), 256)
    where = decode.strips(quantised, 0, block)
    assert where == decode.Strips(100 + block.inner.start // 256 * 144, 144, 11008 // 256 * 144, 4096)
    plain = TensorInfo("p", "BF16", (4096, 4096), Extent(BytesSource(b""), 1000, 0))
    (block,) = decode.blocks(plain, 0, Limits(), 256)
    where = decode.strips(plain, 0, block)
    assert where is not None
    assert (where.length, where.start % 512, where.stride % 4096) == (512, 0, 0), "each strip on one page"


def test_what_cannot_be_sampled_is_noted() -> None:
    huge = TensorInfo("huge", "I8", (3, 10**9), Extent(BytesSource(b""), 0, 0))
    batches, notes = select(Anatomy((), (Matrix(huge, 1, "writer"),), {"main": 10**9}, "names"), 10**9, Limits())
    assert batches == []
    assert "huge" in notes[0]
