"""The hooks themselves; tests/source/remote/test_hub.py has them at work."""

from __future__ import annotations

import pytest

pytest.importorskip("huggingface_hub")

from normsniff.source.remote.hooks import _current, watched


def test_a_call_has_its_own_limits_and_none_after_it() -> None:
    counted: list[int] = []
    with watched(counted.append, 60.0):
        call = _current.get()
        assert call is not None
        call.count(5)
        assert 0 < call.left() <= 60.0
        with watched(int, 0.0):
            inner = _current.get()
            assert inner is not None
            with pytest.raises(TimeoutError):
                inner.left()
        assert _current.get() is call
    assert (counted, _current.get()) == ([5], None)
