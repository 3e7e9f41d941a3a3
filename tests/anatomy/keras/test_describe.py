"""What is what in Keras files: classes, group names and layer graphs, on checkpoints made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from normsniff.anatomy.keras.describe import describe
from normsniff.anatomy.parts import Anatomy, Matrix
from normsniff.checkpoint import ArraySlab, Checkpoint, Layer, TensorInfo
from normsniff.formats.keras.layers import list_layers

D = 32


def checkpoint(shapes: Mapping[str, tuple[int, ...]], layers: tuple[Layer, ...] = (), **more: Any) -> Checkpoint:
    tensors = {
        name: TensorInfo(name, "F32", shape, ArraySlab(np.zeros(shape, np.float32))) for name, shape in shapes.items()
    }
    return Checkpoint("Keras", "3.15.1", tensors, (), "", layers=layers, **more)


def named(groups: Mapping[str, tuple[str | None, tuple[tuple[int, ...], ...]]]) -> Checkpoint:
    """Make a weights file of Keras 3 without configuration: path -> (name, shapes of its variables)."""
    shapes = {f"{path}/vars/{i}": shape for path, (_, vs) in groups.items() for i, shape in enumerate(vs)}
    layers = list_layers(None, {path: name for path, (name, _) in groups.items()}, shapes, ())
    return checkpoint(shapes, layers)


def found(made: Checkpoint) -> Anatomy:
    anatomy = describe(made)
    assert anatomy is not None
    return anatomy


def roles(anatomy: Anatomy) -> dict[str, tuple[str, int, int | None]]:
    return {m.tensor.name: (m.role, m.axis, m.site) for m in anatomy.matrices}


LN, RMS = "LayerNorm", "RMSNorm"
FLAGS = {"center": True, "scale": True, "rms_scaling": False, "epsilon": 1e-3}


@pytest.mark.parametrize(
    ("class_name", "config", "variables", "kind", "scale", "shift"),
    [
        ("LayerNormalization", FLAGS, 2, LN, "0", "1"),
        ("LayerNormalization", FLAGS | {"center": False}, 1, LN, "0", None),
        ("LayerNormalization", FLAGS | {"scale": False}, 1, LN, None, "0"),
        ("LayerNormalization", FLAGS | {"scale": False, "center": False}, 0, LN, None, None),
        ("LayerNormalization", FLAGS | {"rms_scaling": True}, 1, RMS, "0", None),
        ("RMSNormalization", {"epsilon": 1e-6}, 1, RMS, "0", None),
        ("keras_hub>LlamaLayerNorm", {}, 1, RMS, "0", None),
        ("keras_hub>T5LayerNorm", {}, 1, RMS, "0", None),
        ("my>MyRMSNorm", {}, 1, RMS, "0", None),
        ("my>MyLayerNorm", {}, 2, LN, "0", "1"),
        ("my>MyLayerNorm", {}, 1, None, "0", None),
        ("LayerNormalization", {}, 2, LN, "0", "1"),
        ("LayerNormalization", {}, 1, None, "0", None),
    ],
)
def test_kind_scale_and_shift(
    class_name: str, config: dict[str, Any], variables: int, kind: str | None, scale: str | None, shift: str | None
) -> None:
    shapes = {f"layers/n/vars/{i}": (D,) for i in range(variables)}
    (site,) = found(checkpoint(shapes, (Layer("layers/n", class_name, config),))).sites
    assert site.kind == kind
    assert (site.scale and site.scale.name[-1], site.shift and site.shift.name[-1]) == (scale, shift)
    assert site.width == (D if variables else None)
    assert site.why


@pytest.mark.parametrize(
    ("block", "kind", "offset"),
    [
        ("llama_transformer_decoder", RMS, 0.0),
        ("gemma_decoder_block", RMS, 1.0),
        ("gemma3_decoder_block", RMS, 1.0),
        ("gemma3n_text_decoder_block", RMS, 0.0),
        ("gemma4_text_decoder_block", RMS, 0.0),
        ("t5_gemma_decoder_layer", RMS, 1.0),
        ("t5_transformer_layer", RMS, 0.0),
        ("qwen3_5_transformer_decoder", RMS, 1.0),
        ("qwen3_moe_transformer_decoder", RMS, 0.0),
        ("moonshine_decoder_block", LN, 0.0),
        ("transformer_decoder", None, 0.0),
        ("gemmology_block", None, 0.0),
    ],
)
def test_family_tells_what_a_name_does_not(block: str, kind: str | None, offset: float) -> None:
    groups = {
        f"layers/{block}": ("transformer_layer_0", ()),
        f"layers/{block}/_self_attention_layernorm": ("self_attention_layernorm", ((D,),)),
    }
    (site,) = found(named(groups)).sites
    assert (site.kind, site.offset) == (kind, offset)


def test_offset_of_rms_normalization_depends_on_the_family_of_the_file() -> None:
    groups = {"layers/rms_normalization": ("final_normalization", ((D,),))}
    (plain,) = found(named(groups)).sites
    (gemma,) = found(named({"layers/gemma_decoder_block": ("b", ()), **groups})).sites
    assert (plain.kind, plain.offset, gemma.kind, gemma.offset) == (RMS, 0.0, RMS, 1.0)
    config = {"registered_name": "keras_hub>Gemma3Backbone", "class_name": "Gemma3Backbone"}
    shapes = {"layers/rms_normalization/vars/0": (D,)}
    layers = list_layers(config, {"layers/rms_normalization": "final_normalization"}, shapes, ())
    (backbone,) = found(checkpoint(shapes, layers, config=config)).sites
    assert (backbone.kind, backbone.offset) == (RMS, 1.0)


def test_other_normalisers_are_counted() -> None:
    shapes = {f"layers/bn/vars/{i}": (D,) for i in range(4)} | {f"gn/gn/{v}:0": (D,) for v in ("gamma", "beta")}
    shapes |= {f"b/b/{v}:0": (D,) for v in ("gamma", "beta", "moving_mean", "moving_variance")}
    layers = (
        Layer("layers/bn", "BatchNormalization", {}),
        Layer("gn/gn", "GroupNormalization", {}),
        Layer("un", "UnitNormalization", {}),
    )
    anatomy = found(checkpoint(shapes, layers))
    assert anatomy.sites == ()
    assert anatomy.others == {"BatchNorm": 2, "GroupNorm": 1, "UnitNorm": 1}


def test_no_norm_at_all() -> None:
    assert describe(checkpoint({"dense/dense/kernel:0": (D, D)})) is None


def test_legacy_names_of_transformers() -> None:
    base = "bert/tf_bert_model/bert"
    layer = f"{base}/encoder/layer_._1"
    shapes = {
        f"{base}/embeddings/word_embeddings/weight:0": (500, D),
        f"{base}/embeddings/position_embeddings/embeddings:0": (64, D),
        f"{layer}/attention/self/query/kernel:0": (D, D),
        f"{layer}/attention/output/dense/kernel:0": (D, D),
        f"{layer}/attention/output/LayerNorm/gamma:0": (D,),
        f"{layer}/attention/output/LayerNorm/beta:0": (D,),
        f"{layer}/intermediate/dense/kernel:0": (D, 4 * D),
        f"{layer}/output/dense/kernel:0": (4 * D, D),
        f"{base}/pooler/dense/kernel:0": (D, D),
        f"{base}/layer_scale/gamma:0": (D,),
    }
    anatomy = found(checkpoint(shapes, list_layers(None, {}, shapes, ())))
    (site,) = anatomy.sites
    assert (site.kind, site.layer, site.role) == (LN, 1, "stream")
    assert {name.removeprefix(f"{base}/"): role[:2] for name, role in roles(anatomy).items()} == {
        "embeddings/word_embeddings/weight:0": ("embedding", 1),
        "embeddings/position_embeddings/embeddings:0": ("position", 1),
        "encoder/layer_._1/attention/self/query/kernel:0": ("reader", 0),
        "encoder/layer_._1/attention/output/dense/kernel:0": ("writer", 1),
        "encoder/layer_._1/intermediate/dense/kernel:0": ("reader", 0),
        "encoder/layer_._1/output/dense/kernel:0": ("writer", 1),
    }


def graph(*rows: tuple[str, str, tuple[str, ...]]) -> tuple[Layer, ...]:
    return tuple(
        Layer(path, class_name, FLAGS if "Norm" in class_name else {}, inputs) for path, class_name, inputs in rows
    )


BLOCK: dict[str, tuple[str, tuple[str, ...], dict[str, tuple[int, ...]]]] = {
    "ln": ("LayerNormalization", ("x",), {"vars/0": (D,), "vars/1": (D,)}),
    "att": ("MultiHeadAttention", ("ln",), {}),
    "drop": ("Dropout", ("att",), {}),
    "sum": ("Add", ("x", "drop"), {}),
    "ln_1": ("LayerNormalization", ("sum",), {"vars/0": (D,), "vars/1": (D,)}),
    "drop_1": ("Dropout", ("ln_1",), {}),
    "in": ("Dense", ("drop_1",), {"vars/0": (D, D), "vars/1": (D,)}),
    "out": ("Dense", ("in",), {"vars/0": (D, D)}),
    "drop_2": ("Dropout", ("out",), {}),
    "sum_1": ("Add", ("sum", "drop_2"), {}),
    "side": ("Dense", ("in",), {"vars/0": (D, D)}),
    "conv": ("Conv1D", ("ln_1",), {"vars/0": (3, D, 2 * D)}),
    "conv_1": ("Conv1D", ("conv",), {"vars/0": (1, 2 * D, D)}),
}


def test_layer_graph_gives_square_matrices_a_role_and_a_norm() -> None:
    shapes = {f"{path}/{v}": shape for path, (_, _, variables) in BLOCK.items() for v, shape in variables.items()}
    shapes["att/query_dense/vars/0"] = (D, 4, D)
    shapes["att/output_dense/vars/0"] = (4, D, D)
    layers = graph(*((path, class_name, inputs) for path, (class_name, inputs, _) in BLOCK.items()))
    anatomy = found(checkpoint(shapes, layers))
    assert anatomy.widths == {"main": D}
    assert roles(anatomy) == {
        "att/query_dense/vars/0": ("reader", 0, 0),
        "att/output_dense/vars/0": ("writer", 2, None),
        "in/vars/0": ("reader", 0, 1),
        "out/vars/0": ("writer", 1, None),
        "conv/vars/0": ("reader", 1, 1),
        "conv_1/vars/0": ("writer", 2, None),
    }  # `side` is square and neither reads a norm nor is added: its axis is unknown, so it is left out


def test_cross_attention_reads_the_norm_with_its_query_only() -> None:
    layers = graph(
        ("ln", "LayerNormalization", ("x",)),
        ("memory", "Dense", ("y",)),
        ("att", "MultiHeadAttention", ("ln", "memory")),
    )
    shapes: dict[str, tuple[int, ...]] = {"ln/vars/0": (D,), "ln/vars/1": (D,)}
    shapes |= {f"att/{part}_dense/vars/0": (D, 2, 8) for part in ("query", "key", "value")}
    found_roles = roles(found(checkpoint(shapes, layers)))
    assert {name.split("/")[1]: role[2] for name, role in found_roles.items()} == {
        "query_dense": 0,
        "key_dense": None,
        "value_dense": None,
    }


def test_order_of_legacy_layers_stands_in_for_the_graph() -> None:
    order = ("layer_normalization", "dense", "dropout", "dense_1", "stochastic_depth", "add", "final")
    shapes = {
        "layer_normalization/layer_normalization/gamma:0": (D,),
        "layer_normalization/layer_normalization/beta:0": (D,),
        "dense/dense/kernel:0": (D, D),
        "dense_1/dense_1/kernel:0": (D, D),
    }
    layers = list_layers(None, {}, shapes, order)
    anatomy = found(checkpoint(shapes, layers, metadata={"layer_names": ("array", len(order))}))
    assert roles(anatomy) == {"dense/dense/kernel:0": ("reader", 0, 0), "dense_1/dense_1/kernel:0": ("writer", 1, None)}
    assert any("order of the layers" in note for note in anatomy.notes)
    assert roles(found(checkpoint(shapes, layers))) == {}  # without an order there is nothing to tell the axis


def test_roles_by_shape_and_name() -> None:
    groups: dict[str, tuple[str | None, tuple[tuple[int, ...], ...]]] = {
        "layers/layer_normalization": ("layer_normalization", ((D,), (D,))),
        "layers/reversible_embedding": ("token_embedding", ((500, D), (D, 500))),
        "layers/position_embedding": ("pe", ((64, D),)),
        "blocks/block": (None, ()),
        "blocks/block/up": ("dense_1", ((D, 4 * D), (4 * D,))),
        "blocks/block_1": (None, ()),
        "blocks/block_1/down": ("dense_2", ((4 * D, D), (D,))),
        "blocks/block_1/att/_query_dense": ("query", ((D, 2, D),)),
        "blocks/block_1/att/_output_dense": ("attention_output", ((2, D, D),)),
        "blocks/block_1/square": ("dense_3", ((D, D),)),
        "head": ("dense_4", ((D, 1000),)),
    }
    anatomy = found(named(groups))
    assert {name.removesuffix("/vars/0"): role[:2] for name, role in roles(anatomy).items()} == {
        "layers/reversible_embedding": ("embedding", 1),
        "layers/reversible_embedding/vars/1": ("unembedding", 0),
        "layers/position_embedding": ("position", 1),
        "blocks/block/up": ("reader", 0),
        "blocks/block_1/down": ("writer", 1),
        "blocks/block_1/att/_query_dense": ("reader", 0),
        "blocks/block_1/att/_output_dense": ("writer", 2),
        "head": ("unembedding", 0),
    }
    by_name: dict[str, Matrix] = {m.tensor.name: m for m in anatomy.matrices}
    assert by_name["blocks/block/up/vars/0"].layer == 0
    assert by_name["blocks/block_1/down/vars/0"].layer == 1


def test_towers_and_roles_of_norms() -> None:
    groups: dict[str, tuple[str | None, tuple[tuple[int, ...], ...]]] = {
        "layers/gemma_decoder_block": ("b", ()),
        "layers/gemma_decoder_block/pre_attention_norm": ("pre_attention_norm", ((D,),)),
        "layers/gemma_decoder_block/pre_ffw_norm": ("pre_ffw_norm", ((D,),)),
        "layers/gemma_decoder_block/attention/query_norm": ("query_norm", ((8,),)),
        "layers/gemma_decoder_block/other_norm": ("other_norm", ((5,),)),
        "vision_encoder/layer_norm_1": ("layer_norm_1", ((48,), (48,))),
    }
    anatomy = found(named(groups))
    seen = {site.name.rpartition("/")[2]: (site.component, site.role, site.kind) for site in anatomy.sites}
    assert seen == {
        "pre_attention_norm": ("main", "stream", RMS),
        "pre_ffw_norm": ("main", "stream", RMS),
        "query_norm": ("main", "query-key", RMS),
        "other_norm": ("main", "other", RMS),
        "layer_norm_1": ("vision", "stream", LN),
    }
    assert anatomy.widths == {"main": D, "vision": 48}


def test_graph_with_a_cycle_ends() -> None:
    layers = graph(
        ("a", "Dropout", ("b",)),
        ("b", "Dropout", ("a",)),
        ("dense", "Dense", ("a",)),
        ("n", "RMSNormalization", ("a",)),
    )
    anatomy = found(checkpoint({"n/vars/0": (D,), "dense/vars/0": (D, 4 * D)}, layers))
    assert roles(anatomy) == {"dense/vars/0": ("reader", 0, None)}


def test_one_variable_without_a_class_is_said_to_be_open() -> None:
    shapes = {f"blocks/block_{i}/{leaf}/vars/0": (D,) for i in range(2) for leaf in ("norm1", "norm2")}
    assert found(checkpoint(shapes)).hints == {"main": ("one-variable",)}
    rms = {name.replace("norm", "rms_norm"): shape for name, shape in shapes.items()}
    assert found(checkpoint(rms)).hints == {}
    both = shapes | {name[:-1] + "1": shape for name, shape in shapes.items()}
    assert found(checkpoint(both)).hints == {}


def test_a_reader_inside_a_block_reads_the_norm_that_is_named_for_it() -> None:
    block = "layers/llama_transformer_decoder"
    shapes = {
        f"{block}/_self_attention_layernorm/vars/0": (D,),
        f"{block}/_feedforward_layernorm/vars/0": (D,),
        f"{block}/_self_attention_layer/_query_dense/vars/0": (D, 4, 8),
        f"{block}/_feedforward_gate_dense/vars/0": (D, 3 * D),
        f"{block}/_cross_attention_layer/_query_dense/vars/0": (D, 4, 8),
    }
    anatomy = found(checkpoint(shapes))
    read = {m.tensor.name.split("/")[2]: m.site for m in anatomy.matrices}
    names = [site.name.rpartition("/")[2] for site in anatomy.sites]
    assert read == {
        "_self_attention_layer": names.index("_self_attention_layernorm"),
        "_feedforward_gate_dense": names.index("_feedforward_layernorm"),
        "_cross_attention_layer": None,
    }
