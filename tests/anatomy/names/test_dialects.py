"""Libraries that are known by the names of their norms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from normsniff import sniff
from normsniff.anatomy.names.describe import describe

from .test_describe import D, F, checkpoint


def decoder(scale: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_emb.emb.weight": (96, D), f"attn_layers.final_norm.{scale}": (D,)}
    for n in range(4):
        shapes[f"attn_layers.layers.{n}.0.0.{scale}"] = (D,)
        if n % 2 == 0:
            shapes |= {f"attn_layers.layers.{n}.1.{word}.weight": (D, D) for word in ("to_q", "to_k", "to_v", "to_out")}
        else:
            shapes |= {
                f"attn_layers.layers.{n}.1.ff.0.0.weight": (F, D),
                f"attn_layers.layers.{n}.1.ff.2.weight": (D, F),
            }
    return shapes


@pytest.mark.parametrize(("scale", "kind"), [("gamma", "LayerNorm"), ("g", "RMSNorm")])
def test_x_transformers_names_its_norms_by_the_word_of_the_scale(scale: str, kind: str) -> None:
    found = describe(checkpoint(decoder(scale)))
    assert [(site.role, site.kind, site.by_name) for site in found.sites] == [("stream", kind, True)] * 5


@pytest.mark.parametrize(("scale", "label"), [("gamma", "LayerNorm"), ("g", "RMSNorm"), ("scale", "undetermined")])
def test_what_a_dialect_says_is_declared_and_said_to_be_a_name(tmp_path: Path, scale: str, label: str) -> None:
    draw = np.random.default_rng(0)
    values = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in decoder(scale).items()}
    save_file(values, tmp_path / "model.safetensors")
    record = sniff(tmp_path / "model.safetensors")
    assert record.label == label
    declared = [one for one in record.evidence if one.kind == "declared"]
    assert bool(declared) == (scale != "scale")
    assert all("names" in one.reason and "x-transformers" in str(one.details) for one in declared)


def test_the_same_words_elsewhere_say_nothing() -> None:
    found = describe(checkpoint({name.replace("attn_layers", "blocks"): s for name, s in decoder("g").items()}))
    assert {site.kind for site in found.sites} == {None}
