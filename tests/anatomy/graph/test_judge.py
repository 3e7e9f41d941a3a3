"""One comparison says which norm turns x into y."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff.anatomy.graph.judge import agree, contrast, judge, sample

SHAPES = st.lists(st.integers(3, 9), min_size=1, max_size=4).map(tuple)


def layer_norm(x: Any, axis: int | tuple[int, ...]) -> Any:
    c = x - x.mean(axis=axis, keepdims=True)
    return c / np.sqrt((c * c).mean(axis=axis, keepdims=True) + 1e-5)


def rms_norm(x: Any, axis: int | tuple[int, ...]) -> Any:
    return x / np.sqrt((x * x).mean(axis=axis, keepdims=True) + 1e-5)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.data(), st.sampled_from([layer_norm, rms_norm]), st.floats(0.05, 20))
def test_norms_along_any_axis(shape: tuple[int, ...], data: Any, norm: Any, factor: float) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = sample(shape, 30.0, data.draw(st.integers(0, 99)))
    match = judge(x, factor * norm(x, axis))
    assert match is not None
    assert match.kind == ("LayerNorm" if norm is layer_norm else "RMSNorm")
    assert abs(match.factor / factor - 1) < 1e-3
    assert match.axes == (axis - len(shape),)


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_of_two_norms_that_fit_the_nearer_one_counts(norm: Any) -> None:
    x = np.array([3.0, -1.0, 2.0, -4.0, 5.0, 0.5, -2.5, -2.999])  # a mean of 1e-4 beside a deviation of 3
    match = judge(x, norm(x, -1))
    assert match is not None
    assert match.kind == ("LayerNorm" if norm is layer_norm else "RMSNorm")


def mixed(x: Any) -> Any:
    return x @ np.random.default_rng(5).standard_normal((x.shape[-1], x.shape[-1]))


def softmax(x: Any) -> Any:
    raised = np.exp((x - x.max(-1, keepdims=True)) / 30)
    return raised / raised.sum(-1, keepdims=True)


FUNCTIONS = [
    np.tanh, np.sign, np.array, softmax, np.zeros_like,
    lambda x: x - x.mean(-1, keepdims=True),
    lambda x: x / np.abs(x).max(-1, keepdims=True),
    lambda x: x / np.abs(x).sum(-1, keepdims=True),
    lambda x: layer_norm(np.maximum(x, 0), -1),
    lambda x: rms_norm(mixed(x), -1),
    lambda x: x / np.sqrt(np.square(x - x.mean(-1, keepdims=True)).mean(-1, keepdims=True)),
    lambda x: x / np.square(x).mean(-1, keepdims=True),
    lambda x: np.full(x.shape, np.nan),
    lambda x: rms_norm(x, -1) * np.arange(1, x.shape[-1] + 1),
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(4, 9), min_size=2, max_size=3).map(tuple), st.integers(0, 99), st.data())
def test_what_is_no_norm(shape: tuple[int, ...], seed: int, data: Any) -> None:
    function = data.draw(st.sampled_from(FUNCTIONS))
    x = sample(shape, 30.0, seed)
    first, second = (judge(one, function(one)) for one in (x, contrast(x, seed + 1)))
    assert not agree(first, second)


def test_another_layout_is_followed() -> None:
    x = sample((3, 4, 5), 30.0, 0)
    match = judge(x, np.transpose(layer_norm(x, 2), (0, 2, 1)))
    assert match is not None
    assert (match.axes, match.source_axes) == ((-2,), (2,))


def test_the_first_half_of_a_mirrored_norm() -> None:
    x = sample((3, 4, 8), 30.0, 0)
    match = judge(x, layer_norm(np.concatenate([x, -x], -1), -1))
    assert match is not None
    assert (match.kind, match.n) == ("RMSNorm", 8)


@settings(max_examples=100, deadline=None)
@given(st.integers(8, 600), st.integers(0, 10_000), st.sampled_from([np.array, FUNCTIONS[11]]))
def test_one_token_alone_does_not_hide_what_minds_a_factor(d: int, seed: int, function: Any) -> None:
    """x itself, and x over its mean square: by a k of its own each is x / rms(x)."""
    x = sample((1, d), 30.0, seed)
    assert not agree(*(judge(one, function(one)) for one in (x, contrast(x, seed + 1))))


@pytest.mark.parametrize("function", FUNCTIONS[6:8])
def test_one_token_alone_seldom_hides_another_size(function: Any) -> None:
    """Its largest, and its sum."""
    passed = 0
    for seed in range(0, 600, 2):
        x = sample((1, 256), 30.0, seed)
        passed += agree(*(judge(one, function(one)) for one in (x, contrast(x, seed + 1))))
    assert passed <= 6


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 99), st.sampled_from([layer_norm, rms_norm]))
def test_a_norm_is_one_in_both_samples(shape: tuple[int, ...], seed: int, norm: Any) -> None:
    x = sample(shape, 30.0, seed)
    assert agree(*(judge(one, norm(one, -1)) for one in (x, contrast(x, seed + 1))))
