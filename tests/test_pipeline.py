"""The whole street: every fixture and every real model gets its label, from all evidence and from parameters alone."""

from __future__ import annotations

import io
import math
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import normsniff
from normsniff import LimitExceeded, Limits, course, evidence, meter
from normsniff.measure import shadows
from normsniff.record import Classification, EvidenceKind
from tests.helpers.manifest import FIXTURES, Fixture, models, name

KERNEL: tuple[EvidenceKind, ...] = ("kernel",)


@pytest.mark.parametrize("fixture", models(), ids=name)
class TestFixtures:
    def test_all_evidence(self, fixture: Fixture) -> None:
        record = normsniff.sniff(fixture.path)
        assert record.label == fixture.truth, record.evidence
        assert record.confidence is not None
        assert record.confidence >= 0.8
        if fixture.truth in ("LayerNorm", "RMSNorm"):
            assert record.d_model == fixture.d_model
            assert len(record.norms) == fixture.sites

    def test_parameters_alone(self, fixture: Fixture) -> None:
        record = normsniff.sniff(fixture.path, evidence=KERNEL)
        assert record.label in (fixture.truth_kernel, "undetermined"), record.evidence
        assert record.norms == []
        assert record.label == "undetermined" or (record.confidence or 0) >= 0.8

    def test_record_round_trips_and_fits_its_schema(self, fixture: Fixture) -> None:
        import json

        import jsonschema
        import msgspec

        record = normsniff.sniff(fixture.path)
        line = record.to_json()
        assert b"\n" not in line
        assert msgspec.json.decode(line, type=Classification) == record
        jsonschema.validate(json.loads(line), normsniff.json_schema())


def test_findings_are_those_of_a_check() -> None:
    path = FIXTURES / "random-ln"
    record = normsniff.sniff(path)
    assert record.findings == list(normsniff.check(path, deep=True).findings) != []
    assert normsniff.sniff(path, check=False).findings is None
    assert normsniff.sniff(path, evidence=KERNEL, check=True).findings is None, "names must not count"
    cheap = normsniff.sniff(path, evidence=("declared", "layout"))
    asked = normsniff.sniff(path, evidence=("declared", "layout"), check=True)
    assert cheap.findings is None
    assert asked.findings == list(normsniff.check(path).findings)


def test_a_file_that_leaves_no_work_for_findings_keeps_its_label() -> None:
    path = FIXTURES / "gpt2-ln.Q4_K.gguf"
    record = normsniff.sniff(path)
    assert record.findings == []
    low, high = 0, 100_000
    while high - low > 100:  # the least work that a label takes
        steps = (low + high) // 2
        try:
            found = normsniff.sniff(path, limits=Limits(steps=steps))
            high = steps
        except LimitExceeded:
            low = steps
    assert found.label == record.label
    assert found.findings is None
    assert any(warning.startswith("norms not checked") for warning in found.warnings)
    with pytest.raises(LimitExceeded):
        normsniff.sniff(path, limits=Limits(steps=high), check=True)


def test_parameters_alone_answer_most_fixtures() -> None:
    legible = [fixture for fixture in models() if fixture.truth_kernel != "undetermined"]
    answered = [f for f in legible if normsniff.sniff(f.path, evidence=KERNEL).label == f.truth_kernel]
    assert len(legible) > 30
    assert len(answered) >= 0.7 * len(legible)
    assert {f.model for f in answered} >= {"gpt2-ln", "bert-ln", "cohere-ln", "llama-rms"}


def kernel_details(path: Path) -> dict[str, Any]:
    """What the kernel evidence says of the main component, every matrix read whole."""
    return next(e.details for e in normsniff.sniff(path, budget=None).evidence if e.kind == "kernel")


def test_same_weights_have_the_same_rho_in_every_format() -> None:
    """ρ of writers and readers of one model, across safetensors, GGUF, ONNX and Keras, within quantisation error."""
    by_model: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for fixture in models():
        if fixture.truth not in ("LayerNorm", "RMSNorm") or fixture.model.startswith("random"):
            continue
        if name(fixture) == "gemma-rms.bf16.safetensors":
            continue  # no configuration beside it: nothing says that its scales are stored minus one
        details = kernel_details(fixture.path)
        assert details["writers_rho"] is not None, fixture.path
        by_model[fixture.model][name(fixture)] = (details["writers_rho"], details["readers_rho"])
    compared = 0
    for model, found in by_model.items():
        # Readers may be merged (one c_attn) or apart (query, key, value), which weighs their mean differently.
        for column in (0, 1):
            values = {file: pair[column] for file, pair in found.items()}
            middle = median(values.values())
            for file, value in values.items():
                tolerance = 0.1 if column else 0.06 if "Q4_K" in file else 0.02
                assert value == pytest.approx(middle, rel=tolerance), (model, column, values)
                compared += 1
    assert compared > 30
    assert {"gpt2-ln", "llama-rms"} <= by_model.keys()


REAL = {
    "minilm": ("LayerNorm", "LayerNorm"),
    "smollm2": ("RMSNorm", "RMSNorm"),
    "flan-t5-encoder": ("RMSNorm", "RMSNorm"),
    "flan-t5-decoder": ("RMSNorm", "RMSNorm"),
    "magika": ("LayerNorm", "undetermined"),
    "ppocr-cls": ("none", "undetermined"),
    "ppocr-det": ("none", "undetermined"),
    # A convolutional recogniser whose neck is a small transformer: five decomposed LayerNorms in its graph.
    "ppocr-rec": ("LayerNorm", "LayerNorm"),
}


@pytest.mark.models
@pytest.mark.parametrize("short", REAL)
class TestRealModels:
    def test_all_evidence(self, short: str, real_model: Callable[[str], Path]) -> None:
        record = normsniff.sniff(real_model(short))
        assert record.label == REAL[short][0], record.evidence
        assert (record.confidence or 0) > 0.95
        assert record.contradictions == []

    def test_parameters_alone(self, short: str, real_model: Callable[[str], Path]) -> None:
        record = normsniff.sniff(real_model(short), evidence=KERNEL)
        assert record.label == REAL[short][1], record.evidence


@pytest.mark.models
def test_real_models_show_the_figures_of_the_design(real_model: Callable[[str], Path]) -> None:
    """MiniLM: writers 0.18, embedding 0.04; SmolLM2: writers 0.97, readers 0.99 (docs/kernel.md section 4)."""
    kernel = {short: kernel_details(real_model(short)) for short in ("minilm", "smollm2")}
    assert kernel["minilm"]["writers_rho"] == pytest.approx(0.18, abs=0.02)
    assert kernel["minilm"]["embedding_rho"] == pytest.approx(0.04, abs=0.01)
    assert kernel["smollm2"]["writers_rho"] == pytest.approx(0.97, abs=0.02)
    assert kernel["smollm2"]["readers_rho"] == pytest.approx(0.99, abs=0.02)


@pytest.mark.models
def test_reads_a_small_part_of_a_large_file(real_model: Callable[[str], Path]) -> None:
    record = normsniff.sniff(real_model("smollm2"))
    assert record.label == "RMSNorm"
    assert (record.bytes_read or 0) < 0.05 * (record.file_size or 0)
    assert record.matrices_left
    sampled = [s for s in record.shadows if s.role in ("writer", "reader")]
    assert median(s.vectors for s in sampled) >= 256
    assert median(s.relative_error or 1.0 for s in sampled) <= 0.09


class TestParametersAlone:
    """Under ``--evidence kernel`` nothing but shapes and values may matter."""

    def arrays(self, model: str) -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        arrays: dict[str, np.ndarray] = load_file(FIXTURES / model / "model.safetensors")
        return arrays

    @pytest.mark.parametrize("model", ["gpt2-ln", "llama-rms"])
    def test_names_do_not_matter(self, model: str) -> None:
        state = self.arrays(model)
        plain = normsniff.sniff(state, evidence=KERNEL)
        numbered = normsniff.sniff({str(i): a for i, a in enumerate(state.values())}, evidence=KERNEL)
        assert numbered.probabilities == plain.probabilities

    @pytest.mark.parametrize("model", ["gpt2-ln", "llama-rms"])
    def test_lying_metadata_does_not_matter(self, model: str, tmp_path: Path) -> None:
        other = {"gpt2-ln": "llama-rms", "llama-rms": "gpt2-ln"}[model]
        shutil.copy(FIXTURES / model / "model.safetensors", tmp_path)
        honest = normsniff.sniff(tmp_path / "model.safetensors", evidence=KERNEL)
        shutil.copy(FIXTURES / other / "config.json", tmp_path)
        lied_to = normsniff.sniff(tmp_path / "model.safetensors", evidence=KERNEL)
        assert lied_to.probabilities == honest.probabilities

    def test_biases_do_not_matter(self) -> None:
        state = self.arrays("gpt2-ln")
        bare = {k: v for k, v in state.items() if not k.endswith("bias")}
        assert (
            normsniff.sniff(bare, evidence=KERNEL).probabilities
            == normsniff.sniff(state, evidence=KERNEL).probabilities
        )

    @pytest.mark.parametrize("model", ["random-ln", "random-rms"])
    def test_scales_set_by_hand_do_not_make_a_model_trained(self, model: str) -> None:
        rng = np.random.default_rng(0)
        state = {k: rng.uniform(0.5, 1.5, v.shape) if v.ndim == 1 else v for k, v in self.arrays(model).items()}
        assert normsniff.sniff(state, evidence=KERNEL).label == "undetermined"

    def test_numbered_names_with_all_evidence_fall_back_on_the_kernel(self) -> None:
        state = {str(i): a for i, a in enumerate(self.arrays("gpt2-ln").values())}
        record = normsniff.sniff(state)
        assert record.label == "LayerNorm"


class TestContradictions:
    def test_a_wrong_model_type_is_reported_and_not_believed(self, tmp_path: Path) -> None:
        shutil.copy(FIXTURES / "gpt2-ln" / "model.safetensors", tmp_path)
        shutil.copy(FIXTURES / "llama-rms" / "config.json", tmp_path)
        record = normsniff.sniff(tmp_path)
        assert record.label != "RMSNorm"
        assert any("declared" in c.between for c in record.contradictions)

    def test_a_fake_shift_of_zeros(self) -> None:
        from safetensors.numpy import load_file

        state = load_file(FIXTURES / "llama-rms" / "model.safetensors")
        faked = dict(state)
        for key, value in state.items():
            if value.ndim == 1:
                faked[key.removesuffix("weight") + "bias"] = np.zeros_like(value)
        record = normsniff.sniff(faked)
        assert record.label != "LayerNorm"


class TestSources:
    """The same answer whatever the bytes come from."""

    path = FIXTURES / "gpt2-ln.Q8_0.gguf"

    def test_path_bytes_and_file_agree(self) -> None:
        expected = normsniff.sniff(self.path)
        with self.path.open("rb") as file:
            others = [
                normsniff.sniff(str(self.path)),
                normsniff.sniff(self.path.read_bytes()),
                normsniff.sniff(file),
                normsniff.sniff(io.BytesIO(self.path.read_bytes())),
            ]
        for other in others:
            assert other.probabilities == expected.probabilities
            assert other.header_sha256 == expected.header_sha256
            assert other.shadows == expected.shadows

    def test_a_state_dict_has_no_file(self) -> None:
        record = normsniff.sniff({"ln.weight": np.ones(64), "ln.bias": np.zeros(64)})
        assert record.format == "arrays"
        assert record.file_size is None
        assert record.bytes_read is None

    def test_unknown_kinds_are_refused(self) -> None:
        with pytest.raises(ValueError, match="evidence"):
            normsniff.sniff(self.path, evidence=("weights",))  # type: ignore[arg-type]  # on purpose
        with pytest.raises(ValueError, match="evidence"):
            normsniff.sniff(self.path, evidence=())

    def test_missing_file(self) -> None:
        with pytest.raises(normsniff.SourceError):
            normsniff.sniff("no/such/file.gguf")

    def test_without_the_kernel_no_matrix_is_read(self) -> None:
        path = FIXTURES / "gpt2-ln" / "model.safetensors"
        record = normsniff.sniff(path, evidence=("declared", "layout"))
        assert record.label == "LayerNorm"
        assert record.shadows == []
        assert (record.bytes_read or math.inf) < 20_000


def blocks(n: int, d: int = 64) -> dict[str, Any]:
    """Random networks of as many blocks."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for i in range(n):
        found[f"model.layers.{i}.input_layernorm.weight"] = rng.normal(1, 0.1, d)
        found[f"model.layers.{i}.self_attn.q_proj.weight"] = rng.normal(size=(d, d))
        found[f"model.layers.{i}.mlp.down_proj.weight"] = rng.normal(size=(d, 2 * d)) + 5 * rng.normal(size=(d, 1))
    return {name: value.astype(np.float32) for name, value in found.items()}


class TestGrowth:
    def test_a_record_is_told_from_the_header_on_and_ends_as_the_answer(self) -> None:
        told: list[Classification] = []
        answer = normsniff.sniff(FIXTURES / "gpt2-ln", budget=None, tell=told.append)
        assert [len(one.shadows) for one in told] == sorted(len(one.shadows) for one in told)
        assert told[0].shadows == []
        assert told[0].norms
        assert len(told[-1].shadows) < len(answer.shadows)
        again = normsniff.sniff(FIXTURES / "gpt2-ln", budget=None)
        assert answer == replace(again, seconds=answer.seconds)

    def test_whole_matrices_are_weighed_at_their_end_or_where_they_have_grown(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Weighed after each of n matrices, the work was n²; and each kept vectors, of which twelve are pooled."""
        weighed: list[int] = []
        held: list[str] = []
        weigh, hold = evidence.from_shadows, meter.hold

        def noted_weighing(anatomy: Any, measured: Any, *more: Any) -> Any:
            weighed.append(len(measured))
            return weigh(anatomy, measured, *more)

        def noted_holding(nbytes: int, doing: str) -> None:
            held.append(doing)
            hold(nbytes, doing)

        monkeypatch.setattr(course, "from_shadows", noted_weighing)
        monkeypatch.setattr(meter, "hold", noted_holding)
        monkeypatch.setattr(shadows, "POOLED", 1)
        arrays = blocks(60)
        record = normsniff.sniff(arrays, budget=None)
        assert weighed == [len(record.shadows)]
        assert 0 < held.count("what was learned") <= len({one.role for one in record.shadows})
        weighed.clear()
        normsniff.sniff(arrays, budget=None, tell=lambda _: None)
        assert 2 < len(weighed) < len(record.shadows) / 2

    def test_many_short_vectors_are_work(self) -> None:
        """A thousand names for a matrix of short vectors, read whole, took 20 s that nobody had counted."""
        rng = np.random.default_rng(0)
        arrays = {
            f"model.layers.{i}.{part}": rng.normal(1, 0.1, shape).astype(np.float32)
            for i in range(4)
            for part, shape in (("input_layernorm.weight", (8,)), ("self_attn.q_proj.weight", (90_000, 8)))
        }
        with pytest.raises(LimitExceeded, match="measuring shadows"):
            normsniff.sniff(arrays, budget=None, limits=Limits(steps=100_000))

    def test_nothing_is_told_where_nothing_is_left_to_read(self) -> None:
        told: list[Classification] = []
        normsniff.sniff(FIXTURES / "gpt2-ln", evidence=("declared", "layout"), tell=told.append)
        assert told == []

    def test_a_process_of_its_own_tells_nothing(self) -> None:
        with pytest.raises(ValueError, match="tell"):
            normsniff.sniff(FIXTURES / "gpt2-ln", isolate=True, tell=print)


@pytest.mark.parametrize("name", ["random-rms", "random-rms.bf16.safetensors"])
def test_reading_stops_early_where_there_is_nothing_to_find(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    for dear in (0, 1 << 40):  # from which size of the first batch on a glance comes before it
        monkeypatch.setattr("normsniff.measure.samples._GLANCE_FROM", dear)
        early = normsniff.sniff(FIXTURES / name)
        read.append(early.bytes_read or 0)
        assert early.matrices_left
        assert (early.bytes_read or 0) >= normsniff.plan(FIXTURES / name).least_bytes - 4096
    monkeypatch.setattr("normsniff.course.is_quiet", lambda _measured: False)
    late = normsniff.sniff(FIXTURES / name)
    assert not late.matrices_left
    assert read[0] <= read[1] < (late.bytes_read or 0)
    assert (early.label, early.confidence) == (late.label, late.confidence)


@pytest.mark.parametrize("name", ["gpt2-ln", "llama-rms", "mixed", "plain-rms.bf16.safetensors", "gpt2-ln.f16.h5"])
@pytest.mark.parametrize("evidence", [("declared", "layout", "kernel"), ("kernel",)])
def test_a_glance_at_trained_weights_changes_nothing(
    name: str, evidence: tuple[EvidenceKind, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = normsniff.sniff(FIXTURES / name, evidence=evidence)
    monkeypatch.setattr("normsniff.measure.samples._GLANCE_FROM", 0)
    assert replace(normsniff.sniff(FIXTURES / name, evidence=evidence), seconds=0) == replace(plain, seconds=0)


def test_whole_matrices_are_read_to_the_end_whatever_they_look_like() -> None:
    assert not normsniff.sniff(FIXTURES / "random-ln", budget=None).matrices_left
