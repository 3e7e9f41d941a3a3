"""The notebook of the docs, cell by cell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers.manifest import ROOT
from tests.helpers.real_models import find_real_model

NOTEBOOK = ROOT / "examples" / "gamma.ipynb"
MODELS = ["fixtures/llama-rms", "fixtures/gemma-rms.F32.gguf", "smollm2"]


@pytest.mark.parametrize("model", MODELS)
def test_the_notebook_draws_the_scales_of_all_layers(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    path = ROOT / model if "/" in model else find_real_model(model)
    if path is None:
        pytest.skip("not installed")
    monkeypatch.chdir(ROOT)
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        assert cell["cell_type"] == "markdown" or cell["outputs"] == []
        if cell["cell_type"] == "code":
            text = "".join(cell["source"])
            exec(text.replace('"fixtures/llama-rms"', repr(str(path))), names)  # noqa: S102 - our own notebook
    assert names["gamma"].shape == (len(names["rows"]), names["rows"][0].d)
    assert [one.layer for one in names["rows"]] == sorted(one.layer for one in names["rows"])
    import matplotlib.pyplot as plt

    assert plt.get_fignums()
    plt.close("all")
