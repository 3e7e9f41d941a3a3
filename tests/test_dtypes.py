"""The one table of dtypes, against numpy and ml_dtypes, and against the sources: there is no second one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from normsniff.dtypes import BY_CODE, BY_NAME, COMPLEX, FLOATS, INTEGERS, ML_DTYPES, NUMPY, UNITS, numpy_type

SOURCES = Path(__file__).parents[1] / "src" / "normsniff"


@pytest.mark.parametrize("name", [*NUMPY, *COMPLEX, *ML_DTYPES])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_stored_element_takes_what_the_table_says(name: str, order: str) -> None:
    kind = numpy_type(name, order)
    assert UNITS[name] == (1, kind.itemsize)
    assert BY_NAME[kind.name] == name


def test_kinds_do_not_overlap() -> None:
    assert set(BY_CODE.values()) == NUMPY.keys() | COMPLEX.keys()
    assert not FLOATS & INTEGERS
    assert NUMPY.keys() == INTEGERS | FLOATS - {"BF16"}
    assert UNITS.keys() >= FLOATS


def test_no_module_has_a_table_of_its_own() -> None:
    """Four plain floats in one literal are a second table; a format's own codes for types lead to our names."""
    codes = {"formats/ctranslate2", "formats/gguf", "formats/tflite/reader", "formats/onnx/tensors",
             "formats/openvino/reader", "formats/pytorch/tensors", "formats/safetensors", "dead/verification",
             "formats/hdf5/datatypes"}  # fmt: skip
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        name = path.relative_to(SOURCES).with_suffix("").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict | ast.Set | ast.List | ast.Tuple):
                words = {
                    one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)
                }
                if {"F16", "F32", "F64"} <= words and name not in codes | {"dtypes"}:
                    found.append(f"{name}:{node.lineno}")
    assert found == []
