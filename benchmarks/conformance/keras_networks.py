"""Tiny Keras networks whose norms are known: functional, nested, sequential and subclassed, with every norm layer."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("KERAS_HOME", os.devnull)  # nothing is read from or written to a home directory

import keras as keras  # the backend is chosen before the import
import numpy as np

from .truth import Truth

LAYERS = keras.layers
WIDTH, HIDDEN, VOCABULARY, LENGTH, BLOCKS = 32, 96, 80, 8, 2
_STREAM = 2 * BLOCKS + 1
Norm = Callable[[], Any]


@dataclass(frozen=True)
class Network:
    """A network to save.

    Attributes:
        build: makes it.
        truth: what a file with a configuration holds.
        bare: what a file with weights and nothing else holds.
    """

    build: Callable[[], Any]
    truth: Truth
    bare: Truth


@keras.saving.register_keras_serializable("mine")
class Block(LAYERS.Layer):  # type: ignore[misc,name-defined]  # keras is Any for mypy
    """Attention and MLP, each behind a norm made of `norm`, which is not in the configuration."""

    def __init__(self, norm: Norm, **options: Any) -> None:
        super().__init__(**options)
        self.attention_norm, self.mlp_norm = norm(), norm()
        self.attention = LAYERS.MultiHeadAttention(4, WIDTH // 4)
        self.up, self.down = LAYERS.Dense(HIDDEN, activation="gelu"), LAYERS.Dense(WIDTH)

    def build(self, shape: Any) -> None:
        """Build what is inside."""
        self.attention_norm.build(shape)
        self.mlp_norm.build(shape)
        self.attention.build(shape, shape)
        self.up.build(shape)
        self.down.build((*shape[:-1], HIDDEN))
        self.built = True

    def call(self, x: Any) -> Any:
        """Run it."""
        h = self.attention_norm(x)
        x = x + self.attention(h, h)
        return x + self.down(self.up(self.mlp_norm(x)))

    def get_config(self) -> dict[str, Any]:
        """Return nothing that tells what is inside."""
        return {"name": self.name}


@keras.saving.register_keras_serializable("mine")
class MyRMSNorm(LAYERS.Layer):  # type: ignore[misc,name-defined]  # keras is Any for mypy
    """Somebody's own RMSNorm."""

    def build(self, shape: Any) -> None:
        """Make the scale."""
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x: Any) -> Any:
        """Run it."""
        return x * keras.ops.rsqrt(keras.ops.mean(x * x, -1, keepdims=True) + 1e-6) * self.scale


def _attend(x: Any, h: Any) -> Any:
    return LAYERS.Add()([x, LAYERS.MultiHeadAttention(4, WIDTH // 4)(h, h)])


def _mlp(x: Any, h: Any) -> Any:
    return LAYERS.Add()([x, LAYERS.Dense(WIDTH)(LAYERS.Dense(HIDDEN, activation="gelu")(h))])


def functional(norm: Norm, post: bool = False) -> Any:
    """A functional model of native layers."""
    ids = LAYERS.Input((LENGTH,), dtype="int32")
    x = LAYERS.Embedding(VOCABULARY, WIDTH)(ids)
    for _ in range(BLOCKS):
        for part in (_attend, _mlp):
            x = norm()(part(x, x)) if post else part(x, norm()(x))
    return keras.Model(ids, LAYERS.Dense(VOCABULARY)(norm()(x)))


def named(norm: Norm) -> Any:
    """A functional model whose layers have names of the user's."""
    ids = LAYERS.Input((LENGTH,), dtype="int32")
    x = LAYERS.Embedding(VOCABULARY, WIDTH, name="tokens")(ids)
    for i in range(_STREAM - 1):
        first = norm()
        first = first.__class__.from_config({**first.get_config(), "name": f"n{i}"})
        y = LAYERS.Dense(HIDDEN, name=f"up{i}")(first(x))
        x = LAYERS.Add(name=f"sum{i}")([x, LAYERS.Dense(WIDTH, name=f"down{i}")(y)])
    last = norm()
    last = last.__class__.from_config({**last.get_config(), "name": "last"})
    return keras.Model(ids, LAYERS.Dense(VOCABULARY, name="out")(last(x)))


def nested(norm: Norm) -> Any:
    """Every block is a model of its own inside the model, the head a Sequential."""
    ids = LAYERS.Input((LENGTH,), dtype="int32")
    x = LAYERS.Embedding(VOCABULARY, WIDTH)(ids)
    for _ in range(BLOCKS):
        inner = LAYERS.Input((LENGTH, WIDTH))
        x = keras.Model(inner, _mlp(y := _attend(inner, norm()(inner)), norm()(y)))(x)
    return keras.Model(ids, keras.Sequential([norm(), LAYERS.Dense(VOCABULARY)])(x))


def blocks(norm: Norm) -> Any:
    """A functional model of layers that hold layers."""
    ids = LAYERS.Input((LENGTH,), dtype="int32")
    x = LAYERS.Embedding(VOCABULARY, WIDTH)(ids)
    for _ in range(BLOCKS):
        x = Block(norm)(x)
    return keras.Model(ids, LAYERS.Dense(VOCABULARY)(norm()(x)))


@keras.saving.register_keras_serializable("mine")
class Subclassed(keras.Model):  # type: ignore[misc]  # keras is Any for mypy
    """A model by subclassing: blocks in a list, and no configuration of what is inside."""

    def __init__(self, norm: Norm, **options: Any) -> None:
        super().__init__(**options)
        self.tokens = LAYERS.Embedding(VOCABULARY, WIDTH)
        self.blocks = [Block(norm) for _ in range(BLOCKS)]
        self.last_norm, self.out = norm(), LAYERS.Dense(VOCABULARY)

    def call(self, ids: Any) -> Any:
        """Run it."""
        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x)
        return self.out(self.last_norm(x))

    def get_config(self) -> dict[str, Any]:
        """Return nothing that tells what is inside."""
        return {"name": self.name}


def subclassed(norm: Norm) -> Any:
    """A subclassed model that was called once."""
    model = Subclassed(norm)
    model(np.zeros((1, LENGTH), "int32"))
    return model


def convolutional(norm: Norm) -> Any:
    """Two residual blocks of normalised convolutions."""
    image = LAYERS.Input((8, 8, 3))
    x = LAYERS.Conv2D(WIDTH, 3, padding="same")(image)
    for _ in range(BLOCKS):
        x = LAYERS.Add()([x, LAYERS.ReLU()(norm()(LAYERS.Conv2D(WIDTH, 3, padding="same")(x)))])
    return keras.Model(image, LAYERS.Dense(10)(LAYERS.GlobalAveragePooling2D()(x)))


def trained(model: Any) -> Any:
    """Give every weight a value of its own, as training does; nothing stays exactly 0 or 1."""
    random = np.random.default_rng(0)
    noise = (random.normal(0.0, 0.1, w.shape) for w in model.weights)
    values = [
        np.asarray(keras.ops.convert_to_numpy(w), np.float64) + n for w, n in zip(model.weights, noise, strict=True)
    ]
    model.set_weights(
        [np.abs(value) if "variance" in w.path else value for w, value in zip(model.weights, values, strict=True)]
    )
    return model


def quiet(call: Callable[..., Any]) -> Callable[..., Any]:
    """Call without Keras' warnings that a format is old."""

    def called(*arguments: Any) -> Any:
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return call(*arguments)
        finally:
            logging.disable(level)

    return called


# --- the table ---------------------------------------------------------------------------------------------------

LN, RMS = "LayerNorm", "RMSNorm"
# norm layer, its label, scale, shift, whether its weights under its class name leave it open what it computes
_NORMS: Mapping[str, tuple[Norm, str, int, int, bool]] = {
    "LayerNormalization": (LAYERS.LayerNormalization, LN, 1, 1, False),
    "LayerNormalization, center=False": (lambda: LAYERS.LayerNormalization(center=False), LN, 1, 0, True),
    "LayerNormalization, scale=False": (lambda: LAYERS.LayerNormalization(scale=False), LN, 0, 1, True),
    "LayerNormalization, neither": (lambda: LAYERS.LayerNormalization(center=False, scale=False), LN, 0, 0, True),
    "LayerNormalization, rms_scaling": (lambda: LAYERS.LayerNormalization(rms_scaling=True), RMS, 1, 0, True),
    "RMSNormalization": (LAYERS.RMSNormalization, RMS, 1, 0, False),
    "somebody's RMSNorm": (MyRMSNorm, RMS, 1, 0, False),
}
# how the model is made, and whether its configuration lists every norm
_KINDS: Mapping[str, tuple[Callable[[Norm], Any], bool]] = {
    "functional": (functional, True), "post-norm": (lambda norm: functional(norm, post=True), True),
    "named": (named, True), "nested": (nested, True), "blocks": (blocks, False), "subclassed": (subclassed, False),
}  # fmt: skip


def networks() -> dict[str, Network]:
    """Every norm in every kind of model, and models without such a norm."""
    found = {}
    for name, (norm, label, scale, shift, ambiguous) in _NORMS.items():
        for kind, (build, listed) in _KINDS.items():
            truth = Truth(label, _STREAM, _STREAM * scale, _STREAM * shift)
            # attributes are named by the user: of such a norm without variables, or with one, a file does not tell much
            open_ = replace(truth, open=ambiguous or (not listed and not shift))
            bare = open_ if listed or scale or shift else replace(open_, sites=None)
            found[f"{name}, {kind}"] = Network(partial(build, norm), truth if listed else bare, bare)
    others: Mapping[str, Norm] = {
        "BatchNormalization": LAYERS.BatchNormalization,
        "GroupNormalization": lambda: LAYERS.GroupNormalization(4),
        "GroupNormalization of one group": lambda: LAYERS.GroupNormalization(1),
        "UnitNormalization": LAYERS.UnitNormalization,
    }
    for name, norm in others.items():
        for kind, build in (("functional", functional), ("convolutional", convolutional), ("subclassed", subclassed)):
            none = Truth("none", 0, 0, 0)
            bare = replace(none, open=True)
            found[f"{name}, {kind}"] = Network(partial(build, norm), bare if kind == "subclassed" else none, bare)
    return found
