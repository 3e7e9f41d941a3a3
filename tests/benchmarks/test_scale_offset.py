from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scale_offset import TYPES, groups, shifted
from normsniff.checks.history import history
from tests.helpers.manifest import FIXTURES


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["gpt2-ln", "llama-rms", "bert-ln", "gemma-rms.F32.gguf"])
def test_no_addition_is_seen_where_none_was_made(name: str, kind: str) -> None:
    found = [history(shifted(group, 0, TYPES[kind])) for group in groups(FIXTURES / name)]
    assert found
    assert all(one is None or one.added == 0 for one in found)


def test_what_was_added_comes_out_again() -> None:
    values = np.array([0.25, 1.5])
    assert shifted(values, 2, np.float32).tolist() == [2.25, 3.5]
    assert shifted(values, -1, np.float32).tolist() == [-0.75, 0.5]
