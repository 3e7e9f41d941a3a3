"""What is explained of a file's vectors, and what is not."""

from __future__ import annotations

import pytest

from normsniff.anatomy.names.describe import describe

from .test_describe import D, F, checkpoint


def block(n: int) -> dict[str, tuple[int, ...]]:
    return {
        f"layers.{n}.norm.weight": (D,),
        f"layers.{n}.mlp.up_proj.weight": (F, D),
        f"layers.{n}.mlp.up_proj.bias": (F,),
        f"layers.{n}.mlp.down_proj.weight": (D, F),
    }


def test_norms_and_biases_of_matrices_are_explained() -> None:
    found = describe(checkpoint(block(0) | block(1)))
    assert (found.explained, found.unexplained) == (4, ())


def test_a_bias_that_is_named_after_a_matrix_is_explained() -> None:
    found = describe(checkpoint(block(0) | {"layers.0.mlp.gate_bias": (D,), "cls_token": (1, 1, D)}))
    assert found.unexplained == ()


def test_a_vector_without_a_word_that_is_known_is_not() -> None:
    found = describe(checkpoint(block(0) | {"layers.0.thing.zzz": (D,)}))
    assert [(one.what, one.where, one.width) for one in found.unexplained] == [("vector", "layers.0.thing.zzz", D)]


def test_a_name_too_long_to_be_one_is_not() -> None:
    found = describe(checkpoint(block(0) | {"x" * 300: (D,)}))
    assert [len(one.where) for one in found.unexplained] == [200]


def test_two_vectors_of_a_norm_are_scale_and_shift_whatever_their_words() -> None:
    found = describe(checkpoint(block(0) | {"layers.0.norm2.foo": (D,), "layers.0.norm2.bar": (D,)}))
    site = found.sites[1]
    assert (site.name, site.mistakable) == ("layers.0.norm2", True)
    assert site.scale is not None
    assert site.shift is not None


def test_a_word_that_is_joined_to_a_norm_is_part_of_it() -> None:
    found = describe(checkpoint(block(0) | {"layers.0.ln_2.weight": (D,), "layers.0.ln_2_foo": (D,)}))
    assert [(site.name, site.shift is not None) for site in found.sites][1] == ("layers.0.ln_2", True)


def test_two_words_that_are_joined_to_a_norm_may_be_one_norm_or_two() -> None:
    found = describe(checkpoint(block(0) | {"layers.0.ln_2_foo": (D,), "layers.0.ln_2_bar": (D,)}))
    assert [site.name for site in found.sites] == ["layers.0.norm"]
    assert len(found.unexplained) == 2


def test_a_vector_whose_own_word_says_bias_is_never_a_scale() -> None:
    found = describe(checkpoint(block(0) | {"layers.0.norm2.the_bias": (D,)}))
    assert [site.name for site in found.sites] == ["layers.0.norm"]


def test_an_affine_map_of_alpha_and_beta_is_no_norm_and_stays_unexplained() -> None:
    found = describe(checkpoint(block(0) | {"layers.0.norm2.alpha": (D,), "layers.0.norm2.beta": (D,)}))
    assert [site.name for site in found.sites] == ["layers.0.norm"]
    assert len(found.unexplained) == 2


def lstm(sep: str) -> dict[str, tuple[int, ...]]:
    gates = {f"rnn{sep}weight_ih_l0": (4 * D, D), f"rnn{sep}weight_hh_l0": (4 * D, D), f"rnn{sep}bias_ih_l0": (4 * D,)}
    return gates | {f"decoder{sep}weight": (100, D), f"decoder{sep}bias": (100,)}


@pytest.mark.parametrize("sep", [".", "/", "__"])
def test_biases_are_of_matrices_in_any_spelling(sep: str) -> None:
    found = describe(checkpoint(lstm(sep)))
    assert (found.explained, found.of_matrices, found.bare, found.unreadable) == (2, 2, False, False)


def test_what_weight_norm_and_activations_store_is_no_scale_of_a_norm() -> None:
    shapes: dict[str, tuple[int, ...]] = {"ups.0.weight_g": (D, 1, 1), "ups.0.weight_v": (D, D, 4), "ups.0.bias": (D,)}
    found = describe(checkpoint(shapes | {"blocks.0.snake1.alpha": (1, D, 1), "linear.weight": (1, D)}))
    assert found.explained == found.of_matrices == 4


def test_a_gate_is_explained_but_may_be_a_scale() -> None:
    found = describe(checkpoint(block(0) | {"layers.0.mlp.gate": (D,)}))
    assert found.explained - found.of_matrices == 2  # the norm's scale, and the gate


@pytest.mark.parametrize(
    "word", ["self_attention", "MultiHeadDotProductAttention_0", "mixer", "adaLN_modulation", "qkv"]
)
def test_networks_that_may_normalise_without_parameters_are_known_by_their_words(word: str) -> None:
    assert describe(checkpoint(lstm(".") | {f"blocks.0.{word}.weight": (D, D)})).bare


def test_names_without_any_word_of_a_layer_are_unreadable() -> None:
    def named(*words: str) -> bool:
        return describe(checkpoint({f"{word}.weight": (D, D) for word in words})).unreadable

    assert named("xkcdz.0.qwrtp", "bcdfg.0.hjklm", "encoder.0.hjklm")
    assert not named("0", "2", "4")
    assert not named("xkcdz.0.qwrtp", "conv1", "lin")


@pytest.mark.parametrize("shape", [(1, D), (D, 1, 1), (1, 1, D, 1)])
def test_a_weight_with_further_axes_is_that_of_a_layer_with_one_output_or_input(shape: tuple[int, ...]) -> None:
    found = describe(checkpoint({"first.weight": (D, 3), "score.weight": shape, "score.bias": (1,)}))
    assert (found.unexplained, found.of_matrices) == ((), 1)


def test_a_weight_with_further_axes_and_a_shift_like_it_may_be_a_norm() -> None:
    found = describe(checkpoint({"first.weight": (D, 3), "score.weight": (1, D), "score.bias": (1, D)}))
    assert found.unexplained


def test_a_column_beside_the_matrix_of_its_module_is_multiplied_with_it() -> None:
    found = describe(checkpoint({"gat1.W": (D, F), "gat1.a": (1, 2 * F, 1)}))
    assert (found.unexplained, found.of_matrices) == ((), 1)
    assert describe(checkpoint({"gat1.W": (D, F), "gat1.a": (1, 1, F)})).unexplained


def test_what_parametrizations_store_beside_a_matrix_is_its_own() -> None:
    spectral = {"net.0.parametrizations.weight.original": (D, 3), "net.0.parametrizations.weight.0._u": (D,)}
    assert describe(checkpoint(spectral)).of_matrices == 1


@pytest.mark.parametrize(
    ("module", "kind"),
    [("res1.in1", "InstanceNorm"), ("instance_norm2", "InstanceNorm"), ("revin_layer", "InstanceNorm"),
     ("flows.0.actnorm", "ActNorm"), ("layers.0.bn1", "BatchNorm")],
)  # fmt: skip
def test_words_of_norms_that_are_neither_explain_their_vectors(module: str, kind: str) -> None:
    weight, bias = ("affine_weight", "affine_bias") if "revin" in module else ("weight", "bias")
    found = describe(checkpoint({"conv.weight": (D, 3, 3, 3), f"{module}.{weight}": (D,), f"{module}.{bias}": (D,)}))
    assert (found.others, found.sites, found.unexplained) == ({kind: 1}, (), ())


def test_recurrent_cells_attended_before_transformers_did() -> None:
    assert not describe(checkpoint(lstm(".") | {"attention.score.weight": (D, D)})).bare
    assert describe(checkpoint({"attention.score.weight": (D, D), "head.weight": (D, D)})).bare


@pytest.mark.parametrize("word", ["log_std", "pitch_bins", "pos_embed", "cls_token"])
def test_words_that_no_scale_has_leave_no_room_for_a_norm(word: str) -> None:
    found = describe(checkpoint({"policy_net.0.weight": (F, D), "policy_net.0.bias": (F,), word: (D,)}))
    assert (found.explained, found.of_matrices, found.unexplained) == (2, 2, ())
