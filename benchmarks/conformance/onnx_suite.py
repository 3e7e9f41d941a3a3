"""The test models of the package `onnx`: every norm of the standard, as an operator and spelled out."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .truth import Made, Truth

# The modules of onnx.backend.test.case.node whose models normalise; importing one makes its models
_MODULES = (
    "layernormalization", "rmsnormalization", "batch_normalization", "batchnorm", "groupnormalization",
    "instance_normalization", "instancenorm", "lpnormalization", "meanvariancenormalization", "lrn",
)  # fmt: skip
_NORMS = {"test_layer_normalization": "LayerNorm", "test_rms_normalization": "RMSNorm"}


def models(modules: tuple[str, ...] = _MODULES) -> list[Any]:
    """Return the test cases of some modules; each has a name, a model and data."""
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they divide by zero on purpose
        for module in modules:
            if find_spec(f"onnx.backend.test.case.node.{module}") is None:  # versions of onnx name them differently
                continue
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
    return [case for case in node._NodeTestCases if case.model is not None]


def cases(only: str | None) -> Iterator[Made]:
    """Yield every model; what is neither LayerNorm nor RMSNorm has no norm in our sense."""
    for case in models():
        if not any(word in case.name for word in ("norm", "mvn", "lrn")) or only not in (None, case.name):
            continue
        label = next((label for prefix, label in _NORMS.items() if case.name.startswith(prefix)), "none")
        expanded = "expanded" if "expanded" in case.name else "operator"
        group = f"onnx suite, {label if label != 'none' else 'other norms'}, {expanded}"
        yield Made(case.name, group, Truth(label, None, 0, 0), _writer(case.model))


def _writer(model: Any) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        path = directory / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write
