"""Without its library a callback says what to install."""

from __future__ import annotations

import importlib
import sys

import pytest

import normsniff


@pytest.mark.parametrize(
    ("module", "library"),
    [("transformers", "transformers"), ("lightning", "lightning.pytorch"), ("keras", "keras.callbacks")],
)
def test_without_its_library(module: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"normsniff.callbacks.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(normsniff.MissingExtra, match=rf"\[{module}\]"):
        importlib.import_module(f"normsniff.callbacks.{module}")
