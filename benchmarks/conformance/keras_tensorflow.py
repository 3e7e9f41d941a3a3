"""Files of Keras 2, as tf_keras still writes them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .tensorflow_networks import NETWORKS, trained
from .truth import Made

# file, and whether the configuration is in it
_FILES = {"model.h5": True, "model.keras": True, "weights.h5": False, "model.weights.h5": False}


def cases(only: str | None = None) -> Iterator[Made]:
    """Every network in every container, or one network."""
    for name, (build, truth, tells) in NETWORKS.items():
        if only in (None, name):
            model = trained(build())
            for file, configured in _FILES.items():
                known = truth if configured or tells else replace(truth, open=True)
                yield Made(name, f"Keras 2 {file}", known, partial(_save, model, file))


def _save(model: Any, file: str, directory: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (model.save if _FILES[file] else model.save_weights)(directory / file)
    return directory / file
