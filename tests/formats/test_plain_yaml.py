from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normsniff.formats.plain_yaml import settings

NEMO = """\
# of NeMo
target: nemo.collections.nlp.models.GPT
model:
  normalization: 'rmsnorm'
  layernorm_epsilon: 1e-05
  encoder:
    layers: 12
    bias: false
  optim:
    betas:
    - 0.9
    - name: normalization
      normalization: layernorm
  flow: {normalization: layernorm}
  text: |
    normalization: layernorm
  dropout: null   # none
labels: [a, b]
last: 2
"""


def test_lines_of_a_key_and_a_word() -> None:
    assert settings(NEMO) == {
        "target": "nemo.collections.nlp.models.GPT",
        "model": {
            "normalization": "rmsnorm",
            "layernorm_epsilon": 1e-05,
            "encoder": {"layers": 12, "bias": False},
            "dropout": None,
        },
        "last": 2,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1\nb: *x", {}),
        ("a: !!python/object/apply:os.system [x]", {}),
        ("a : 1\n- b: 2\n  c: 3\nd: 4", {"d": 4}),
        ("a:\n b: 1\n  c: 2\nd: 'x", {"a": {"b": 1, "c": 2}, "d": "'x"}),
        ("a: " + "9" * 100, {"a": "9" * 100}),
        ("a: 1.5e400", {"a": "1.5e400"}),
        ("a: 1\na: 2", {"a": 2}),
        ("  a: 1\nb: 2", {"a": 1, "b": 2}),
        ("x" * 500 + ": 1", {}),
        ("a:" * 100, {}),
    ],
)  # fmt: skip
def test_what_is_anything_else_says_nothing(text: str, expected: dict[str, object]) -> None:
    assert settings(text) == expected


@given(st.text("ab: -#\n'\"|{&1.e", max_size=80))
def test_any_text_has_an_answer(text: str) -> None:
    assert isinstance(settings(text), dict)


def test_deep_nesting_ends() -> None:
    text = "\n".join(" " * i + "a:" for i in range(190))
    assert settings(text + "\n" + " " * 190 + "b: 1")
