"""NumPy files against ``numpy.load``, through the whole street."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from normsniff import decode, sniff
from normsniff.inputs.shards import open_model
from normsniff.limits import Limits
from tests.helpers.manifest import FIXTURES


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("name", ["gpt2-ln", "llama-rms"])
def test_a_model_saved_as_npz(tmp_path: Path, name: str, compressed: bool) -> None:
    original = FIXTURES / name / "model.safetensors"
    checkpoint = open_model(original)
    arrays = {key: decode.read(tensor, Limits()) for key, tensor in checkpoint.tensors.items()}
    checkpoint.close()
    path = tmp_path / "model.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)  # type: ignore[arg-type]  # names of tensors
    opened = open_model(path)
    with np.load(path) as loaded:
        assert list(opened.tensors) == loaded.files
        for key in loaded.files:
            np.testing.assert_array_equal(decode.read(opened.tensors[key], Limits()), loaded[key])
    opened.close()
    (tmp_path / "config.json").write_bytes((FIXTURES / name / "config.json").read_bytes())
    expected, found = sniff(original), sniff(path)
    assert (found.label, found.confidence) == (expected.label, expected.confidence)
    assert [s.rho for s in found.shadows] == [s.rho for s in expected.shadows]
