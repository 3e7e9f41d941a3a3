"""Each kind of evidence alone, on anatomies and checkpoints made by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from normsniff import evidence, kernel
from normsniff.anatomy.parts import Anatomy, Hint, Matrix, MatrixRole, NormKind, Site, Unexplained
from normsniff.checkpoint import ArraySlab, Checkpoint, Graph, TensorInfo
from normsniff.evidence import contents, substitutes
from normsniff.kernel.shadow import ShadowEnergy
from normsniff.measure.shadows import Measured

WEIGHTS = evidence.load_weights()
VECTOR = TensorInfo("v", "F32", (64,), ArraySlab(np.ones(64, np.float32)))
MATRIX = TensorInfo("m", "F32", (64, 128), ArraySlab(np.ones((64, 128), np.float32)))


def checkpoint(
    tensors: Mapping[str, TensorInfo] | None = None,
    metadata: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    graph: Graph | None = None,
) -> Checkpoint:
    return Checkpoint("safetensors", None, tensors or {}, (), "", metadata or {}, config, graph)


def sites(n: int, shifted: int, kind: NormKind | None = None, role: Any = "stream") -> tuple[Site, ...]:
    return tuple(Site(f"norm{i}", VECTOR, VECTOR if i < shifted else None, kind=kind, role=role) for i in range(n))


def anatomy(*found: Site, others: Mapping[str, int] | None = None, basis: str = "names") -> Anatomy:
    return Anatomy(found, (), {"main": 64} if found else {}, basis, others=others)


class TestLayout:
    @pytest.mark.parametrize(
        ("n", "shifted", "label"),
        [(9, 9, "LayerNorm"), (9, 0, "RMSNorm"), (10, 5, "mixed"), (20, 1, "RMSNorm"), (20, 19, "LayerNorm")],
    )
    def test_shifts(self, n: int, shifted: int, label: str) -> None:
        shifts = {i: np.full(64, 0.1) for i in range(shifted)}
        (found,) = evidence.from_layout(checkpoint(), anatomy(*sites(n, shifted)), shifts, WEIGHTS, None)
        assert found.label == label
        assert math.copysign(1, found.log_odds) == {"LayerNorm": 1, "RMSNorm": -1, "mixed": 1}[label]

    def test_shifts_of_zeros_are_weaker(self) -> None:
        zeros = {i: np.zeros(64) for i in range(4)}
        (found,) = evidence.from_layout(checkpoint(), anatomy(*sites(4, 4)), zeros, WEIGHTS, None)
        assert 0 < found.log_odds < WEIGHTS.rules["shift present"].log_odds

    @pytest.mark.parametrize(
        ("model_type", "shifted", "silent"),
        [
            ("cohere", 0, True),  # LayerNorm without a shift: it is stored as it is declared
            ("cohere", 9, False),
            ("llama", 0, False),
            ("llama", 9, False),
            ("gpt2", 0, False),  # the shifts are missing
        ],
    )
    def test_what_a_declared_family_explains_is_not_counted_twice(
        self, model_type: str, shifted: int, silent: bool
    ) -> None:
        found = checkpoint(config={"model_type": model_type})
        fact = evidence.family_of(found)
        (layout,) = evidence.from_layout(found, anatomy(*sites(9, shifted)), {}, WEIGHTS, fact)
        assert (layout.log_odds == 0) is silent

    @pytest.mark.parametrize(("hint", "label"), [("parallel", "undetermined"), ("layer-words", "undetermined")])
    def test_structure_says_more_than_the_lack_of_a_shift(self, hint: Hint, label: str) -> None:
        parts = replace(anatomy(*sites(9, 0)), hints={"main": (hint,)})
        (layout,) = evidence.from_layout(checkpoint(), parts, {}, WEIGHTS, None)
        assert (layout.label, layout.log_odds) == (label, WEIGHTS.rules[hint].log_odds)

    def bare(self, word: str) -> float:
        found = anatomy(*(replace(site, word=word) for site in sites(9, 0)))
        (layout,) = evidence.from_layout(checkpoint(), found, {}, WEIGHTS, None)
        assert (layout.label == "RMSNorm") is (layout.log_odds <= -1)
        return layout.log_odds

    def test_norms_without_a_shift_are_believed_by_what_they_are_called(self) -> None:
        everyone, nobody = WEIGHTS.rules["shift absent"].log_odds, self.bare("nobody_calls_a_norm_so")
        assert self.bare("input_layernorm") == everyone
        assert everyone < WEIGHTS.answer_odds < nobody < 0
        assert self.bare("final_norm") > nobody

    def test_a_few_strange_names_do_not_take_the_weight_off_the_others(self) -> None:
        assert WEIGHTS.bare(["input_layernorm"] * 5 + ["nobody"] * 4) == WEIGHTS.bare(["input_layernorm"])
        assert WEIGHTS.bare(["input_layernorm"] * 4 + ["nobody"] * 5) == WEIGHTS.bare(["nobody"])

    @pytest.mark.parametrize(("word", "says"), [("attn_rms", True), ("rmsnorm_0", True), ("terms_norm", False)])
    def test_a_name_that_nobody_uses_may_say_rms_itself(self, word: str, says: bool) -> None:
        assert word not in WEIGHTS.bare_words
        assert (self.bare(word) == self.bare("rms_norm")) is says

    def test_query_key_norms_do_not_speak(self) -> None:
        odd = anatomy(*sites(4, 0), *sites(8, 8, role="query-key"))
        assert evidence.from_layout(checkpoint(), odd, {}, WEIGHTS, None)[0].label == "RMSNorm"

    def test_other_normalisers_only(self) -> None:
        (found,) = evidence.from_layout(checkpoint(), anatomy(others={"BatchNorm": 3}), {}, WEIGHTS, None)
        assert found.label == "none"
        assert "BatchNorm" in found.reason

    def test_no_vector_is_left_to_be_a_scale(self) -> None:
        def said(**account: Any) -> list[str]:
            parts = replace(anatomy(), explained=4, of_matrices=4, **account)
            return [one.label for one in evidence.from_layout(checkpoint(), parts, {}, WEIGHTS, None)]

        assert said() == ["none"]
        left = replace(anatomy(), explained=4, of_matrices=3)
        assert evidence.from_layout(checkpoint(), left, {}, WEIGHTS, None) == []
        assert said(unexplained=(Unexplained("vector", "a", "", 64),)) == []
        assert said(bare=True) == []  # a norm may have no parameters
        assert said(unreadable=True) == ["none"]
        assert said(unreadable=True, widths={"main": 64}) == []  # so may a stream whose matrices nothing names

    def test_convolutional_networks_may_mean_another_norm(self) -> None:
        kernel = TensorInfo("k", "F32", (64, 64, 3, 3), ArraySlab(np.ones((64, 64, 3, 3), np.float32)))
        (found,) = evidence.from_layout(checkpoint({"k": kernel}), anatomy(*sites(4, 4)), {}, WEIGHTS, None)
        assert found.label == "undetermined"

    def test_group_norms_of_a_convolutional_stream_leave_no_one_answer(self) -> None:
        tensors = {
            "k": TensorInfo("k", "F32", (64, 64, 3, 3), ArraySlab(np.ones((64, 64, 3, 3), np.float32))),
            "m": TensorInfo("m", "F32", (512, 512), ArraySlab(np.ones((512, 512), np.float32))),
        }

        def said(group_norms: Mapping[str, int]) -> str:
            parts = replace(anatomy(*sites(30, 30)), group_norms=group_norms)
            return evidence.from_layout(checkpoint(tensors), parts, {}, WEIGHTS, None)[0].label

        assert said({"main": 8}) == "undetermined"
        assert said({"main": 1}) == said({"tokenizer": 8}) == said({}) == "LayerNorm"


class TestDeclared:
    def of(self, found: Checkpoint, parts: Anatomy | None = None) -> list[tuple[str, int]]:
        around = parts or anatomy(*sites(3, 0))
        content = contents.of(found, around)
        pieces = evidence.from_declarations(found, around, WEIGHTS, evidence.family_of(found), content)
        return [(one.label, (one.log_odds > 0) - (one.log_odds < 0)) for one in pieces]

    @pytest.mark.parametrize(
        ("metadata", "expected"),
        [
            ({"general.architecture": "llama"}, [("RMSNorm", -1)]),
            ({"general.architecture": "gpt2"}, [("LayerNorm", 1)]),
            # both epsilon keys, or the wrong one: the architecture decides (norm-facts.md, trap 3)
            ({"general.architecture": "t5", "t5.attention.layer_norm_epsilon": 1e-6}, [("RMSNorm", -1)]),
            ({"general.architecture": "command-r"}, [("LayerNorm", 1)]),
            ({"general.architecture": "cohere2moe"}, [("LayerNorm", 1)]),
            (
                {"general.architecture": "cohere2moe", "cohere2moe.attention.layer_norm_rms_epsilon": 1e-5},
                [("RMSNorm", -1)],
            ),
            ({"general.architecture": "no-such", "no-such.attention.layer_norm_rms_epsilon": 1e-5}, [("RMSNorm", -1)]),
            ({"general.architecture": "no-such"}, []),
            ({"general.architecture": 7}, []),
            ({"general.type": "adapter", "general.architecture": "llama"}, [("none", 0)]),
        ],
    )
    def test_gguf(self, metadata: Mapping[str, Any], expected: list[tuple[str, int]]) -> None:
        assert self.of(checkpoint(metadata=metadata)) == expected

    @pytest.mark.parametrize(
        ("config", "expected"),
        [
            ({"model_type": "llama"}, [("RMSNorm", -1)]),
            ({"model_type": "bert"}, [("LayerNorm", 1)]),
            ({"model_type": "no-such", "rms_norm_eps": 1e-6}, [("RMSNorm", -1)]),
            ({"model_type": "no-such", "layer_norm_eps": 1e-6}, [("LayerNorm", 1)]),
            # four families against eight: too few to tell
            ({"model_type": "no-such", "layer_norm_epsilon": 1e-6}, [("undetermined", -1)]),
            ({"model_type": "no-such"}, []),
        ],
    )
    def test_config(self, config: Mapping[str, Any], expected: list[tuple[str, int]]) -> None:
        assert self.of(checkpoint(config=config)) == expected

    @pytest.mark.parametrize(
        ("shifted", "expected"), [(0, ("RMSNorm", -1)), (8, ("RMSNorm", -1)), (9, ("undetermined", 0))]
    )
    def test_a_key_of_norms_without_shifts_says_nothing_where_all_have_one(
        self, shifted: int, expected: tuple[str, int]
    ) -> None:
        found = checkpoint(config={"model_type": "no-such", "rms_norm_eps": 1e-6})
        assert self.of(found, anatomy(*sites(9, shifted))) == [expected]

    def test_operators_outweigh_a_model_type(self) -> None:
        graph = Graph((), (), (), {})
        found = checkpoint(config={"model_type": "llama"}, graph=graph)
        assert self.of(found, anatomy(*sites(4, 4, "LayerNorm"), basis="graph")) == [("LayerNorm", 1)]

    def test_a_graph_without_norms(self) -> None:
        assert self.of(checkpoint(graph=Graph((), (), (), {})), anatomy(basis="graph")) == [("none", 0)]

    def test_one_stream_with_both(self) -> None:
        both = anatomy(*sites(4, 4, "LayerNorm"), *sites(4, 0, "RMSNorm"))
        assert self.of(checkpoint(), both) == [("mixed", 0)]

    def test_an_exception_does_not_make_a_mixture(self) -> None:
        mostly = anatomy(*sites(1, 1, "LayerNorm"), *sites(24, 0, "RMSNorm"))
        assert self.of(checkpoint(), mostly) == [("RMSNorm", -1)]


def measured(
    role: MatrixRole,
    rho: float,
    *,
    dispersion: float = 0.3,
    alignment: float = 0.03,
    z: float = -1.0,
    learned: float | None = None,
    seed: int = 0,
) -> Measured:
    """A matrix with these figures; unless told otherwise one that looks trained, with a null of moderate spread.

    One that looks trained has eight directions above its noise, which keep `learned` (ρ, if not told otherwise) of
    their energy along **1**.
    """
    spread = (rho - 1) / z if rho != 1 and z != -1.0 else 0.2
    n, d = 1000, 64
    fourth = (1 + 2 / d + dispersion**2) / n
    cosines = ((alignment + 1 / d) * 100, 100.0)
    shadow = ShadowEnergy(rho, 1.0, (1 + spread, 1 - spread), n, (0.0, 0.0, 0.0), (1.0, fourth), cosines, d)
    rows = np.random.default_rng(seed).standard_normal((256, d))
    if alignment <= 0 and learned is None:
        noise = kernel.learned_shadow(rows, np.ones(d))
        return Measured(Matrix(MATRIX, 0, role), "ones", shadow, None, noise)
    signs = np.array([[1.0]])
    while len(signs) < d:
        signs = np.block([[signs, signs], [signs, -signs]])
    kept = min(rho if learned is None else learned, 8.0) / d
    directions = (math.sqrt(1 - kept) * signs[1:9] + math.sqrt(kept) * signs[0]) / math.sqrt(d)
    rows = rows + 64 * np.linalg.qr(np.random.default_rng(seed + 1000).standard_normal((256, 8)))[0] @ directions
    found = kernel.learned_shadow(rows, np.ones(d))
    return Measured(Matrix(MATRIX, 0, role), "ones", shadow, None, found, rows)


def several(n: int, role: MatrixRole, rho: float, **more: float) -> list[Measured]:
    return [measured(role, rho, seed=i, **more) for i in range(n)]


class TestKernel:
    def of(self, *found: Measured, spread: float | None = 0.2) -> Any:
        parts = Anatomy((), tuple(m.matrix for m in found), {"main": 64}, "names")
        (one,) = evidence.from_shadows(parts, found, spread, WEIGHTS)
        return one

    @pytest.mark.parametrize(
        ("writers", "readers", "label"),
        [
            (0.18, 0.85, "LayerNorm"),  # MiniLM
            (0.06, 0.2, "LayerNorm"),  # Whisper
            (0.97, 0.99, "RMSNorm"),  # SmolLM2
            (1.5, 1.3, "RMSNorm"),  # small, Adam without weight decay
            (0.55, 0.75, "undetermined"),
            (4.0, 4.0, "undetermined"),  # no residual transformer
        ],
    )
    def test_roles_known(self, writers: float, readers: float, label: str) -> None:
        found = several(6, "writer", writers) + several(6, "reader", readers)
        assert self.of(*found).label == label

    @pytest.mark.parametrize(("rho", "label"), [(0.2, "LayerNorm"), (1.0, "RMSNorm"), (0.5, "undetermined")])
    def test_roles_unknown(self, rho: float, label: str) -> None:
        assert self.of(*several(12, "unknown", rho)).label == label

    @pytest.mark.parametrize(
        ("rho", "tied", "kernels", "label"),
        [
            (1.0, 12, False, "RMSNorm"),
            (1.0, 3, False, "RMSNorm"),
            (1.0, 2, False, "undetermined"),
            (1.0, 3, True, "undetermined"),  # a voice: its text encoder is normalised, its flow and vocoder are not
            (1.0, 6, True, "RMSNorm"),
            (0.2, 0, False, "LayerNorm"),  # a shadow is there, whatever it is beside
            (0.2, 0, True, "LayerNorm"),
        ],
    )
    def test_weights_that_follow_no_scale_do_not_deny_a_mean(
        self, rho: float, tied: int, kernels: bool, label: str
    ) -> None:
        shape = (64, 128, 5) if kernels else (64, 128)
        tensor = TensorInfo("k", "F32", shape, ArraySlab(np.ones(shape, np.float32)))
        found = [
            msgspec.structs.replace(
                one, tie=2.0 if at < tied else 0.5, matrix=msgspec.structs.replace(one.matrix, tensor=tensor)
            )
            for at, one in enumerate(several(12, "unknown", rho))
        ]
        said = self.of(*found)
        assert said.label == label
        assert ("follow a scale" in said.reason) is (label == "undetermined")

    @pytest.mark.parametrize(("rho", "label"), [(1.0, "undetermined"), (0.1, "LayerNorm")])
    def test_weights_of_one_length_do_not_deny_a_mean(self, rho: float, label: str) -> None:
        """Those of nGPT, which has scales and no norm."""
        found = []
        for one in several(12, "unknown", rho):
            shadow = msgspec.structs.replace(one.shadow, norm_sums=(1.0, 1 / one.shadow.vectors))
            found.append(msgspec.structs.replace(one, shadow=shadow, tie=2.0))
        said = self.of(*found)
        assert said.label == label
        assert ("of one length" in said.reason) is (label == "undetermined")

    def test_untrained_weights_cannot_speak_for_rms_norm(self) -> None:
        for spread in (None, 0.0, 0.3):  # whoever draws the scales at random leaves the matrices as they were
            found = self.of(*several(12, "writer", 1.0, dispersion=0.01, alignment=0.0), spread=spread)
            assert found.label == "undetermined"
            assert "untrained" in found.reason

    def test_without_any_scale_nothing_speaks_for_rms_norm(self) -> None:
        assert self.of(*several(12, "writer", 1.0), spread=None).log_odds == 0

    def test_a_shadow_needs_no_proof_of_training(self) -> None:
        assert self.of(*several(12, "writer", 0.1, dispersion=0.0, alignment=0.0, learned=0.05)).label == "LayerNorm"

    def test_energy_kept_by_what_was_learned_is_proof_of_training_too(self) -> None:
        young = several(6, "writer", 1.0, dispersion=0.01, alignment=0.0, learned=1.0)
        young += several(6, "reader", 1.0, dispersion=0.01, alignment=0.0, learned=1.0)
        assert self.of(*young).log_odds < -0.5
        bare = self.of(*young, spread=None)
        assert (bare.label, bare.log_odds) == ("undetermined", 0.0)
        assert "no mean is subtracted; whether there is a norm is not visible" in bare.reason

    def test_far_more_energy_than_chance_gives_is_no_sign_of_rms_norm(self) -> None:
        assert self.of(*several(12, "reader", 1.2, learned=8.0), *several(6, "writer", 1.0)).log_odds >= 0

    def test_embeddings_decide_nothing_alone(self) -> None:
        assert self.of(*[measured("embedding", 0.02), measured("unembedding", 0.1)]).log_odds == 0

    def test_centred_writers_are_recognised_as_rewritten(self) -> None:
        found = self.of(*several(8, "writer", 1e-11), *several(4, "reader", 1.0))
        assert found.details["rewritten_from"] == "LayerNorm"
        assert found.log_odds == 0

    def test_some_clear_deficits_among_none_is_no_answer(self) -> None:
        found = self.of(*several(3, "unknown", 0.2, z=-6), *several(7, "unknown", 1.0))
        assert found.label == "undetermined"

    def test_nothing_measured(self) -> None:
        assert self.of().label == "undetermined"

    def test_what_untrained_weights_lean_to_by_chance_counts_nothing(self) -> None:
        plain: dict[str, float] = {"dispersion": 0.0, "alignment": 0.0}
        untrained = self.of(*several(6, "writer", 0.85, **plain), *several(6, "reader", 0.9, **plain), spread=None)
        assert untrained.log_odds == 0
        assert untrained.reason.endswith("the weights look untrained")
        assert self.of(*several(6, "writer", 0.3, **plain), *several(6, "reader", 0.5, **plain)).log_odds > 1


def test_names_that_nobody_used_give_no_answer_alone() -> None:
    assert WEIGHTS.answer_odds < WEIGHTS.bare(["nobodys_norm"] * 7) < 0
    assert WEIGHTS.bare(["input_layernorm"] * 7) < WEIGHTS.answer_odds


def test_every_number_has_a_reason() -> None:
    reasons = [WEIGHTS.total_cap.because, WEIGHTS.answer_from.because]
    reasons += [choice.because for choice in msgspec.structs.asdict(WEIGHTS.chosen).values()]
    reasons += [rule.because for rule in WEIGHTS.rules.values()]
    assert all(len(reason) > 40 for reason in reasons)
    assert len(reasons) > 20


@pytest.mark.parametrize("name", WEIGHTS.rules)
def test_every_rule_follows_from_its_counts(name: str) -> None:
    rule = WEIGHTS.rules[name]
    sign = -1 if rule.says == "RMSNorm" else 1
    assert rule.log_odds == pytest.approx(sign * math.log((rule.right + 1) / (rule.wrong + 1)), abs=1e-4)
    assert rule.right >= rule.wrong


class TestSubstitutes:
    """The dynamic tanh stores a scale and a shift as a LayerNorm does, and one number more."""

    def dyt(self, numbers: bool = True) -> dict[str, TensorInfo]:
        one = TensorInfo("a", "F32", (1,), ArraySlab(np.ones(1, np.float32)))
        tensors = {f"norm{i}.{leaf}": VECTOR for i in range(6) for leaf in ("weight", "bias")}
        return tensors | ({f"norm{i}.alpha": one for i in range(6)} if numbers else {})

    def test_beside_the_scales(self) -> None:
        found = checkpoint(self.dyt())
        assert substitutes.find(found, anatomy(*sites(6, 6))) == {"main"}
        (layout,) = evidence.from_layout(found, anatomy(*sites(6, 6)), {}, WEIGHTS, None)
        assert (layout.label, layout.log_odds) == ("undetermined", 0.0)
        assert "dynamic tanh" in layout.reason
        assert substitutes.find(checkpoint(self.dyt(numbers=False)), anatomy(*sites(6, 6))) == frozenset()

    def test_parameters_alone(self) -> None:
        shapes = Anatomy((), (), {"main": 64}, "shapes")
        assert substitutes.find(checkpoint(self.dyt()), shapes) == {"main"}
        graph = checkpoint(self.dyt(), graph=Graph((), (), (), {}))
        assert substitutes.find(graph, shapes) == frozenset()  # a graph is full of constants
        packed = {**self.dyt(), "m": TensorInfo("m", "I8", (64, 128), ArraySlab(np.ones((64, 128), np.int8)))}
        assert substitutes.find(checkpoint(packed), shapes) == frozenset()  # these are scales of packed weights

    def test_the_kernel_takes_them_for_neither_norm(self) -> None:
        for rho in (1.0, 0.1):
            found = several(12, "writer", rho)
            parts = Anatomy((), tuple(m.matrix for m in found), {"main": 64}, "names")
            (one,) = evidence.from_shadows(parts, found, 0.2, WEIGHTS, {"main"})
            assert (one.label, one.log_odds) == ("undetermined", 0.0)
