"""CTranslate2's own specification classes write a model; every variable and every role must be found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normsniff import anatomy as anatomies
from normsniff import decode
from normsniff.formats import read_checkpoint
from normsniff.limits import Limits
from normsniff.source.local import FileSource

D = 16
RNG = np.random.default_rng(9)
# by the end of a variable's name; what is left are the scales and shifts of norms
SHAPES = {
    "self_attention/linear_0/weight": (3 * D, D), "self_attention/linear_1/weight": (D, D),
    "ffn/linear_0/weight": (4 * D, D), "ffn/linear_1/weight": (D, 4 * D), "embeddings/weight": (40, D),
    "projection/weight": (40, D), "encodings": (30, D),
}  # fmt: skip


@pytest.fixture(scope="module")
def specs() -> Any:
    return pytest.importorskip("ctranslate2.specs", exc_type=ImportError)


@pytest.mark.parametrize("quantization", [None, "float16", "int8", "int16"])
@pytest.mark.parametrize("rms_norm", [False, True])
def test_a_model_of_the_converter(specs: Any, tmp_path: Path, rms_norm: bool, quantization: str | None) -> None:
    spec = specs.TransformerDecoderModelSpec.from_config(2, 4, pre_norm=True, rms_norm=rms_norm)
    variables = _fill(spec)
    model_spec = specs.model_spec
    model_spec.LayerSpec.validate(spec)
    spec.optimize(quantization=quantization)
    spec._serialize(str(tmp_path / "model.bin"))
    checkpoint = read_checkpoint(FileSource(tmp_path / "model.bin"), Limits())
    for name, array in variables.items():
        found = decode.read(checkpoint.tensors[name], Limits())
        precision = {None: 0.0, "float16": 1e-3, "int16": 1e-2, "int8": 1e-2}[quantization]
        np.testing.assert_allclose(found, array, atol=precision * np.abs(array).max())
    anatomy = anatomies.describe(checkpoint)
    assert [site.kind for site in anatomy.sites] == ["RMSNorm" if rms_norm else "LayerNorm"] * 5
    roles = sorted(m.role for m in anatomy.matrices if m.role in ("reader", "writer"))
    assert roles == ["reader"] * 4 + ["writer"] * 4


def _fill(spec: Any) -> dict[str, Any]:
    """Set what the specification asks for; return it by name."""
    variables: dict[str, Any] = {}

    def visit(layer: Any, name: str, value: Any) -> None:
        if value is None:
            shape = next((shape for end, shape in SHAPES.items() if name.endswith(end)), (D,))
            around = 1.0 if name.endswith("gamma") else 0.0
            variables[name] = (around + 0.1 * RNG.standard_normal(shape)).astype(np.float32)
            setattr(layer, name.rpartition("/")[2], variables[name].copy())  # quantised in place

    spec._visit(visit)
    return variables
