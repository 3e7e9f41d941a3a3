"""What tf2onnx makes of Keras 2 networks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf2onnx

from .tensorflow_networks import NETWORKS, trained
from .truth import Made

_OPSETS = (11, 13, 17, 18)


def cases(only: str | None = None) -> Iterator[Made]:
    """Every network in every operator set, or one network."""
    for name, (build, truth, _) in NETWORKS.items():
        if only in (None, name):
            model = trained(build())
            for opset in _OPSETS:
                yield Made(name, f"ONNX tf2onnx {opset}", truth, partial(_convert, model, opset))


def _convert(model: Any, opset: int, directory: Path) -> Path:
    path = directory / "model.onnx"
    signature = [tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]
    function = tf.function(model.call, input_signature=signature)
    logging.disable(logging.CRITICAL)  # it tells of every optimiser that gives up
    try:
        tf2onnx.convert.from_function(function, input_signature=signature, opset=opset, output_path=str(path))
    finally:
        logging.disable(logging.NOTSET)
    return path
