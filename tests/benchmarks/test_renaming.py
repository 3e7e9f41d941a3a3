"""No renaming of a file's tensors turns a right label into a wrong one; it may make it an abstention."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import normsniff
from benchmarks.conformance.renaming import SPELLINGS, outcome
from normsniff.decode.values import read
from normsniff.inputs.opening import open_source
from normsniff.limits import Limits
from tests.helpers.manifest import FIXTURES

MODELS = {
    "bert-ln": "LayerNorm",
    "gpt2-ln": "LayerNorm",
    "cohere-ln": "LayerNorm",
    "gemma-rms": "RMSNorm",
    "llama-rms": "RMSNorm",
    "plain-rms": "RMSNorm",
    "mixed": "mixed",
}
Arrays = dict[str, NDArray[np.float32]]


@cache
def arrays(model: str) -> Arrays:
    """The tensors of a fixture without its configuration; vectors alone have values, as nothing else is looked at."""
    checkpoint = open_source((FIXTURES / f"{model}.bf16.safetensors").read_bytes())
    return {
        name: read(tensor, Limits()) if len(tensor.shape) == 1 else np.broadcast_to(np.float32(0), tensor.shape)
        for name, tensor in checkpoint.tensors.items()
    }


def label(model: str, names: list[str]) -> str:
    record = normsniff.sniff(dict(zip(names, arrays(model).values(), strict=True)), evidence=("declared", "layout"))
    said = outcome(MODELS[model], record)
    return said if not said.startswith("wrong") else f"{said}: {record.label}, {[e.reason for e in record.evidence]}"


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("model", MODELS)
def test_no_spelling_makes_a_label_wrong(model: str, spelling: str) -> None:
    names = [SPELLINGS[spelling](name) for name in arrays(model)]
    if label(model, list(arrays(model))) == "right":
        assert label(model, names) in ("right", "abstained")


@settings(max_examples=60)
@given(
    model=st.sampled_from(sorted(MODELS)),
    separators=st.lists(st.sampled_from([".", "/", "__", "|", "::", "->", "-", "_", " "]), min_size=1, max_size=3),
    words=st.dictionaries(
        st.sampled_from(["weight", "bias", "norm", "ln", "attn", "mlp", "layers", "h", "model", "self_attn"]),
        st.from_regex(r"[a-zA-Z][a-zA-Z_]{0,6}", fullmatch=True),
        max_size=4,
    ),
)
def test_no_random_spelling_makes_a_label_wrong(model: str, separators: list[str], words: dict[str, str]) -> None:
    names = []
    for name in arrays(model):
        parts = [words.get(part, part) for part in name.split(".")]
        text = parts[0]
        for at, part in enumerate(parts[1:]):
            text += separators[at % len(separators)] + part
        names.append(text)
    if len(set(names)) == len(names) and label(model, list(arrays(model))) == "right":
        assert label(model, names) in ("right", "abstained")
