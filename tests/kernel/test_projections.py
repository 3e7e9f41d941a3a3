"""One pass against what it stands for: plain products, in every layout and shape that has a way of its own."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
from numpy.typing import NDArray

from normsniff.kernel import projections
from normsniff.kernel.projections import projected

RNG = np.random.default_rng(11)


def _flipped(d: int, draws: int) -> NDArray[np.float64]:
    """Return signs as the module documents them: one a coordinate, times one a bucket and draw; (d, draws)."""
    signs, mixes = projections._signs(d, draws, 0)
    width, spare = divmod(d, len(mixes))
    buckets = [*np.repeat(np.arange(len(mixes)), width), *range(spare)]
    return signs[:, None].astype(np.float64) * mixes[buckets]


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize(
    ("n", "d"), [(5, 20), (7, 64), (40, 100), (300, 256), (3, 300), (700, 384), (33, 4096), (9, 4200), (0, 300)]
)
def test_one_pass_is_what_plain_products_give(n: int, d: int, columns: bool, flat: bool) -> None:
    rows = RNG.normal(size=(n, d)).astype(np.float32)
    v = np.full(d, d**-0.5) if flat else RNG.normal(size=d) / d**0.5
    found = projected(np, np.asfortranarray(rows) if columns else rows, v.astype(np.float32), 64, 0)
    exact = rows.astype(np.float64)
    for ours, plain in (
        (found.norms, (exact**2).sum(axis=1)),
        (found.expectations, ((exact * v) ** 2).sum(axis=1)),
        (found.along, exact @ v),
        (found.flips, ((exact @ (v[:, None] * _flipped(d, 64))) ** 2).sum(axis=0)),
        (found.total, (exact**2).sum()),
    ):
        np.testing.assert_allclose(ours, plain, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("d", [300, 4200])
def test_a_slice_of_columns_and_numbers_that_start_anywhere_are_read_as_they_lie(d: int) -> None:
    wide = RNG.normal(size=(d, 90)).astype(np.float32)
    v = np.full(d, d**-0.5, np.float32)
    copied = projected(np, np.ascontiguousarray(wide[:, 20:70].T), v, 64, 0)
    shifted = np.frombuffer(b"x" + wide.tobytes(), np.uint8)[1:].view(np.float32).reshape(d, 90)
    for one in (wide, shifted):
        found = projected(np, one[:, 20:70].T, v, 64, 0)
        np.testing.assert_allclose(found.along, copied.along, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.flips, copied.flips, rtol=1e-4)


@pytest.mark.parametrize("d", [70, 400])
def test_every_namespace_gives_the_same(d: int) -> None:
    rows, v = RNG.normal(size=(30, d)).astype(np.float32), RNG.normal(size=d).astype(np.float32)
    ours = projected(np, rows, v, 16, 3)
    xp = array_api_strict
    other = projected(xp, xp.asarray(rows), xp.asarray(v), 16, 3)
    np.testing.assert_allclose(ours.flips, np.asarray(other.flips), rtol=1e-4)
    np.testing.assert_allclose(ours.expectations, np.asarray(other.expectations), rtol=1e-4)
