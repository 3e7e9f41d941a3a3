"""Tiny networks of Keras 2, which needs TensorFlow: for its own files and for tf2onnx, which knows no GELU."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow speaks of every processor feature

import numpy as np
import tensorflow as tf
import tf_keras

from .truth import Truth

WIDTH, HIDDEN, VOCABULARY, LENGTH, BLOCKS = 32, 96, 80, 8, 2
_STREAM = 2 * BLOCKS + 1
LAYERS = tf_keras.layers
Norm = Callable[[], Any]


class RMSNorm(LAYERS.Layer):  # type: ignore[misc,name-defined]  # tf_keras is Any for mypy
    """Keras 2 has none of its own: as T5's in transformers."""

    def build(self, shape: Any) -> None:
        """Make the scale."""
        self.weight = self.add_weight("weight", shape=(shape[-1],), initializer="ones")

    def call(self, x: Any) -> Any:
        """Run it."""
        return self.weight * (x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-6))


def transformer(norm: Norm) -> Any:
    """A functional pre-norm transformer."""
    ids = LAYERS.Input((LENGTH,), dtype="int32")
    x = LAYERS.Embedding(VOCABULARY, WIDTH)(ids)
    for _ in range(BLOCKS):
        h = norm()(x)
        x = LAYERS.Add()([x, LAYERS.MultiHeadAttention(4, WIDTH // 4)(h, h)])
        h = LAYERS.Dense(HIDDEN, activation="relu")(norm()(x))
        x = LAYERS.Add()([x, LAYERS.Dense(WIDTH)(h)])
    return tf_keras.Model(ids, LAYERS.Dense(VOCABULARY)(norm()(x)))


def convolutional(norm: Norm) -> Any:
    """Two residual blocks of normalised convolutions."""
    image = LAYERS.Input((8, 8, 3))
    x = LAYERS.Conv2D(WIDTH, 3, padding="same")(image)
    for _ in range(BLOCKS):
        x = LAYERS.Add()([x, LAYERS.ReLU()(norm()(LAYERS.Conv2D(WIDTH, 3, padding="same")(x)))])
    return tf_keras.Model(image, LAYERS.Dense(10)(LAYERS.GlobalAveragePooling2D()(x)))


def trained(model: Any) -> Any:
    """Give every weight a value of its own, as training does; nothing stays exactly 0 or 1."""
    random = np.random.default_rng(0)
    values = [w + random.normal(0.0, 0.1, w.shape) for w in model.get_weights()]
    model.set_weights([np.abs(v) if "variance" in w.name else v for w, v in zip(model.weights, values, strict=True)])
    return model


def _truth(label: str, scale: bool, shift: bool) -> Truth:
    return Truth(label, _STREAM, _STREAM * scale, _STREAM * shift)


_NONE = Truth("none", 0, 0, 0)
# what builds it, its truth, whether its weights alone tell
NETWORKS: Mapping[str, tuple[Callable[[], Any], Truth, bool]] = {
    "LayerNormalization": (partial(transformer, LAYERS.LayerNormalization), _truth("LayerNorm", True, True), True),
    "LayerNormalization, center=False": (
        partial(transformer, lambda: LAYERS.LayerNormalization(center=False)), _truth("LayerNorm", True, False), False,
    ),
    "LayerNormalization, scale=False": (
        partial(transformer, lambda: LAYERS.LayerNormalization(scale=False)), _truth("LayerNorm", False, True), False,
    ),
    "somebody's RMSNorm": (partial(transformer, RMSNorm), _truth("RMSNorm", True, False), True),
    "BatchNormalization": (partial(convolutional, LAYERS.BatchNormalization), _NONE, False),
    "GroupNormalization": (partial(convolutional, lambda: LAYERS.GroupNormalization(4)), _NONE, False),
    "GroupNormalization of one group": (partial(convolutional, lambda: LAYERS.GroupNormalization(1)), _NONE, False),
    "UnitNormalization": (partial(transformer, LAYERS.UnitNormalization), _NONE, False),
}  # fmt: skip
