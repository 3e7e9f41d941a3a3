"""Files of every kind: the networks as graphs and as weights, estimators, layer lists, and what holds no network."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]
Shapes = Mapping[str, tuple[int, ...]]


class File(NamedTuple):
    """A file to make.

    Attributes:
        name: what it is.
        kind: what it is tabled under.
        container: its format, in words.
        truth: its label; ``undetermined`` where it shows none, so that only an abstention is right.
        write: writes it into a folder, and returns its path.
    """

    name: str
    kind: str
    container: str
    truth: str
    write: Callable[[Path], Path]


def files() -> Iterator[File]:
    """Yield every file that can be made here; the libraries that make a group may be missing."""
    for group in (_of_torch, _of_estimators, _of_layers, _of_parts):
        try:
            yield from group()
        except ImportError as missing:
            warnings.warn(f"{group.__name__}: left out, {missing.name} is not installed", stacklevel=1)


# --- torch ---------------------------------------------------------------------------------------------------------


def _of_torch() -> Iterator[File]:
    """Yield every network as a graph, and as the weights alone."""
    import torch
    from torch.nn.utils import parametrize

    from .networks import networks

    for one in networks():
        model, example = one.module.eval(), one.example
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))  # off the constants of initialisation
        kept = {name: value.clone() for name, value in model.state_dict().items()}

        def graph(folder: Path, model: Any = model, example: Any = example) -> Path:
            buffer = io.BytesIO()
            for module in model.modules():  # spectral norm has no operator: as users do, its result is written
                ways = module.parametrizations["weight"] if parametrize.is_parametrized(module, "weight") else ()
                if any(type(way).__name__ == "_SpectralNorm" for way in ways):
                    parametrize.remove_parametrizations(module, "weight")
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                torch.onnx.export(model, (example,), buffer, dynamo=False, opset_version=17)
            path = folder / "model.onnx"
            path.write_bytes(buffer.getvalue())
            return path

        def weights(folder: Path, kept: Any = kept) -> Path:
            torch.save(kept, folder / "model.pt")
            return folder / "model.pt"

        yield File(one.name, one.kind, "graph", one.truth, graph)
        if kept:
            yield File(one.name, one.kind, "weights", one.truth, weights)


# --- scikit-learn --------------------------------------------------------------------------------------------------


def _of_estimators() -> Iterator[File]:
    """Yield trees, neighbours and linear models as skl2onnx writes them."""
    import skl2onnx
    from sklearn import (
        cluster,
        decomposition,
        ensemble,
        linear_model,
        naive_bayes,
        neighbors,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )

    estimators: dict[str, Any] = {
        "decision tree": tree.DecisionTreeClassifier(max_depth=3),
        "random forest": ensemble.RandomForestClassifier(5, max_depth=3),
        "random forest, regression": ensemble.RandomForestRegressor(5, max_depth=3),
        "gradient boosting": ensemble.GradientBoostingClassifier(n_estimators=5),
        "isolation forest": ensemble.IsolationForest(n_estimators=5),
        "boosted stumps": ensemble.AdaBoostClassifier(n_estimators=3),
        "logistic regression behind a scaler": pipeline.make_pipeline(
            preprocessing.StandardScaler(), linear_model.LogisticRegression()
        ),
        "least squares behind unit lengths": pipeline.make_pipeline(
            preprocessing.Normalizer(), linear_model.LinearRegression()
        ),
        "robust scaling and a lasso": pipeline.make_pipeline(preprocessing.RobustScaler(), linear_model.Lasso(0.01)),
        "support vectors": svm.SVC(probability=False),
        "nearest neighbours": neighbors.KNeighborsClassifier(3),
        "naive Bayes": naive_bayes.GaussianNB(),
        "k means": cluster.KMeans(3, n_init=1),
        "principal components": decomposition.PCA(3),
        "perceptron of scikit-learn": neural_network.MLPClassifier((8,), max_iter=20),
    }
    draw = np.random.default_rng(0)
    x = draw.normal(size=(80, 6)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)

    def written(estimator: Any) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = skl2onnx.to_onnx(estimator.fit(x, y), x[:1], target_opset={"": 17, "ai.onnx.ml": 3})
            (folder / "model.onnx").write_bytes(model.SerializeToString())
            return folder / "model.onnx"

        return write

    for name, estimator in estimators.items():
        yield File(name, "trees and estimators", "graph", "none", written(estimator))


# --- Keras ---------------------------------------------------------------------------------------------------------


def _of_layers() -> Iterator[File]:
    """Yield networks that list their layers."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    from keras import layers

    def stack(*parts: Any) -> Any:
        return keras.Sequential(list(parts))

    image, words, row, series = (layers.Input(shape) for shape in ((16, 16, 3), (8,), (10,), (20, 4)))
    made: dict[str, tuple[str, str, Callable[[], Any]]] = {
        "Keras CNN": ("CNN", "none", lambda: stack(
            image, layers.Conv2D(8, 3), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(4))),
        "Keras CNN, BatchNorm": ("CNN", "none", lambda: stack(
            image, layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU(), layers.GlobalAveragePooling2D(),
            layers.Dense(4, "softmax"))),
        "Keras CNN, GroupNorm": ("CNN", "none", lambda: stack(
            image, layers.SeparableConv2D(8, 3), layers.GroupNormalization(4), layers.GlobalMaxPooling2D())),
        "Keras CNN, spectral norm": ("CNN", "none", lambda: stack(
            image, layers.SpectralNormalization(layers.Conv2D(8, 3)), layers.LeakyReLU(), layers.Flatten())),
        "Keras LSTM": ("RNN", "none", lambda: stack(words, layers.Embedding(50, 16), layers.LSTM(16), layers.Dense(2))),
        "Keras GRU, both ways": ("RNN", "none", lambda: stack(
            words, layers.Embedding(50, 16), layers.Bidirectional(layers.GRU(16)), layers.Dense(2))),
        "Keras perceptron": ("MLP", "none", lambda: stack(row, layers.Dense(16, "relu"), layers.Dropout(0.1),
                                                          layers.Dense(3))),
        "Keras perceptron, unit lengths": ("MLP", "none", lambda: stack(
            row, layers.Dense(16, "relu"), layers.UnitNormalization(), layers.Dense(3))),
        "Keras perceptron behind a scaler": ("MLP", "none", lambda: stack(
            row, layers.Normalization(mean=0.0, variance=2.0), layers.Dense(3))),
        "Keras convolutions of a series": ("signals", "none", lambda: stack(
            series, layers.Conv1D(8, 3, padding="causal"), layers.BatchNormalization(), layers.Flatten())),
        "Keras perceptron, LayerNorm": ("MLP", "LayerNorm", lambda: stack(
            row, layers.Dense(16), layers.LayerNormalization(), layers.Dense(3))),
        "Keras perceptron, RMSNorm": ("MLP", "RMSNorm", lambda: stack(
            row, layers.Dense(16), layers.RMSNormalization(), layers.Dense(3))),
        "Keras perceptron, either norm by turns": ("mixed stream", "mixed", lambda: stack(
            row, layers.Dense(16), layers.RMSNormalization(), layers.Dense(16), layers.LayerNormalization(),
            layers.Dense(16), layers.RMSNormalization(), layers.Dense(16), layers.LayerNormalization())),
    }  # fmt: skip

    def written(build: Callable[[], Any]) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            build().save(folder / "model.keras")
            return folder / "model.keras"

        return write

    for name, (kind, truth, build) in made.items():
        yield File(name, kind, "layers", truth, written(build))


# --- what holds no network -------------------------------------------------------------------------------------------

_D = 32
_TARGETS = [f"layers.{n}.self_attn.{leaf}" for n in (0, 1) for leaf in ("q_proj", "v_proj")]
_UNETS = [f"lora_unet_down_blocks_{n}_attentions_0_proj_in" for n in (0, 1)]


def _each(targets: list[str], **shapes: tuple[int, ...]) -> Shapes:
    return {f"{target}.{name.replace('__', '.')}": shape for target in targets for name, shape in shapes.items()}


_ADAPTERS: dict[str, Shapes] = {
    "LoRA of PEFT": _each(_TARGETS, lora_A__weight=(4, _D), lora_B__weight=(_D, 4)),
    "LoRA of kohya": _each(_UNETS, lora_down__weight=(4, _D), lora_up__weight=(_D, 4), alpha=()),
    "LoRA of diffusers": _each(_TARGETS, lora__down__weight=(4, _D), lora__up__weight=(_D, 4)),
    "DoRA": _each(_TARGETS, lora_A__weight=(4, _D), lora_B__weight=(_D, 4), lora_magnitude_vector=(_D,)),
    "LoHa": _each(_UNETS, hada_w1_a=(_D, 4), hada_w1_b=(4, _D), hada_w2_a=(_D, 4), hada_w2_b=(4, _D), alpha=()),
    "LoKr": _each(_UNETS, lokr_w1=(4, 4), lokr_w2=(8, 8), alpha=()),
    "LyCORIS with differences of norms": {
        **_each(_UNETS, lora_down__weight=(4, _D), lora_up__weight=(_D, 4), alpha=()),
        "lora_unet_down_blocks_0_norm1.w_norm": (_D,), "lora_unet_down_blocks_0_norm1.b_norm": (_D,),
    },
    "IA3": _each(_TARGETS, ia3_l=(_D, 1)),
    "OFT": _each(_TARGETS, oft_r=(4, 8, 8)),
    "BOFT": _each(_TARGETS, boft_R=(2, 4, 8, 8), boft_s=(_D, 1)),
    "VeRA": _each(_TARGETS, vera_lambda_b=(_D,), vera_lambda_d=(4,)),
    "prompt tuning": {"prompt_embeddings": (8, _D)},
    "differences of whole matrices": _each(_TARGETS, diff=(_D, _D), diff_b=(_D,)),
}  # fmt: skip
_STATES = {"0": (_D, _D), "1": (_D,), "2": (4 * _D, _D), "3": (4 * _D,)}
_FRAGMENTS: dict[str, tuple[str, Shapes]] = {
    "Adam": ("optimiser state", {f"state.{n}.{word}": shape for n, shape in _STATES.items()
                                 for word in ("exp_avg", "exp_avg_sq")} | {f"state.{n}.step": () for n in _STATES}),
    "SGD with momentum": ("optimiser state", {f"state.{n}.momentum_buffer": shape for n, shape in _STATES.items()}),
    "RMSprop": ("optimiser state", {f"optimizer.state.{n}.square_avg": shape for n, shape in _STATES.items()}),
    "Adam, by names of parameters": ("optimiser state", {
        f"optimizer.state.{target}.weight.{word}": (_D, _D)
        for target in _TARGETS for word in ("exp_avg", "exp_avg_sq")}),
    "table of words": ("embeddings", {"wv.vectors": (500, _D)}),
    "embeddings of a language model": ("embeddings", {"model.embed_tokens.weight": (500, _D)}),
    "inverted text of two encoders": ("embeddings", {"clip_l": (4, _D), "clip_g": (4, 2 * _D)}),
    "vectors to steer by": ("fragment", {f"direction.{n}": (_D,) for n in range(1, 8)}),
    "head without a bias": ("fragment", {"score.weight": (3, _D)}),
    "biases of logits": ("fragment", {"bias": (500,)}),
}  # fmt: skip


def _drawn(shapes: Shapes) -> Arrays:
    draw = np.random.default_rng(0)
    return {name: draw.normal(0.0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}


def _of_parts() -> Iterator[File]:
    """Yield adapters, states of optimisers, vocabularies and fragments."""
    import gguf
    from safetensors.numpy import save_file

    def tensors(shapes: Shapes) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            save_file(_drawn(shapes), folder / "model.safetensors")
            return folder / "model.safetensors"

        return write

    def container(architecture: str, keys: Mapping[str, str], shapes: Shapes, words: int = 0) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            writer = gguf.GGUFWriter(folder / "model.gguf", architecture)
            for key, value in keys.items():
                writer.add_string(key, value)
            if words:
                writer.add_tokenizer_model("llama")
                writer.add_token_list([f"word{n}" for n in range(words)])
            for name, array in _drawn(shapes).items():
                writer.add_tensor(name, array)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            return folder / "model.gguf"

        return write

    for name, shapes in _ADAPTERS.items():
        yield File(name, "adapter", "weights", "none", tensors(shapes))
    pair = {"blk.0.attn_q.weight.lora_a": (4, _D), "blk.0.attn_q.weight.lora_b": (_D, 4)}
    adapter, matrix = {"general.type": "adapter", "adapter.type": "lora"}, {"general.type": "imatrix"}
    yield File("LoRA in GGUF", "adapter", "GGUF", "none", container("llama", adapter, pair))
    sums = {"blk.0.attn_q.weight.in_sum2": (1, _D), "blk.0.attn_q.weight.counts": (1, 1)}
    yield File("importance matrix", "adapter", "GGUF", "none", container("llama", matrix, sums))
    for name, (kind, shapes) in _FRAGMENTS.items():
        yield File(name, kind, "weights", "undetermined", tensors(shapes))
    for architecture, truth in (("llama", "RMSNorm"), ("bert", "LayerNorm"), ("nobodys", "undetermined")):
        yield File(f"words of {architecture}", "vocabulary", "GGUF", truth, container(architecture, {}, {}, 20))
    steering = {f"direction.{n}": (_D,) for n in range(1, 5)}
    yield File("control vector", "fragment", "GGUF", "undetermined", container("controlvector", {}, steering))
