"""Faults of norms, put into the bytes of model files of any format, and into models that are made for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

import normsniff

Arrays = list[NDArray[Any]]
_TYPES: Mapping[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class ValueFault:
    """A fault of stored values.

    Attributes:
        name: of the injector.
        code: what `normsniff check` must find.
        change: takes the stored scales of all norms, in order and of their own type, and returns what to store.
        at: the places of the norms that the finding must name; empty for all, or where it names none.
    """

    name: str
    code: str
    change: Callable[[Arrays], Arrays]
    at: tuple[int, ...] = ()


def each(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Arrays], Arrays]:
    """Do the same to every scale, in the scale's own type."""
    return lambda scales: [change(scale).astype(scale.dtype) for scale in scales]


def one(index: int, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Arrays], Arrays]:
    """Do something to one scale."""
    return lambda scales: [change(v).astype(v.dtype) if i == index else v for i, v in enumerate(scales)]


def put(value: float, *at: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a change that overwrites some values."""

    def change(scale: NDArray[Any]) -> NDArray[Any]:
        changed = scale.copy()
        changed.reshape(-1)[list(at)] = value
        return changed

    return change


def copied(source: int, target: int) -> Callable[[Arrays], Arrays]:
    """Return a change that stores one scale in the place of another."""
    return lambda scales: [scales[source] if i == target else v for i, v in enumerate(scales)]


def add(number: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a change that adds a number in the scale's own type."""
    return lambda scale: scale + scale.dtype.type(number)


VALUE_FAULTS = (
    ValueFault("one added", "scale-offset", each(add(1))),
    ValueFault("one added twice", "scale-offset", each(lambda v: add(1)(add(1)(v)))),
    ValueFault("one subtracted", "scale-offset", each(add(-1))),
    ValueFault("a NaN", "not-finite", one(1, put(np.nan, 3)), (1,)),
    ValueFault("an overflow", "not-finite", one(2, put(np.inf, 0, 7)), (2,)),
    ValueFault("a huge value", "huge", one(0, put(7e4, 5)), (0,)),
    ValueFault("zeros", "dead", one(3, put(0, 1, 2, 15)), (3,)),
    ValueFault("all scales initialised again", "untrained", each(np.ones_like)),
    ValueFault("one scale initialised again", "untrained", one(0, np.ones_like), (0,)),
    ValueFault("a norm mapped twice", "repeated", copied(0, 1), (0, 1)),
    ValueFault("a block copied", "repeated", copied(0, 2), (0, 2)),
)


def inject(source: Path, fault: ValueFault, folder: Path) -> Path:
    """Copy a model whose scales are stored as plain bytes, with other scales; return the copy.

    The bytes of every scale are looked for in the file, so that this knows nothing of any format.
    """
    with normsniff.norms(source, dtype=np.float64) as norms:
        kinds = [np.dtype(_TYPES[str(norm.scale_dtype)]) for norm in norms]
        before = [_stored(norm).astype(kind) for norm, kind in zip(norms, kinds, strict=True)]
    with np.errstate(all="ignore"):
        after = fault.change(before)
    copy = folder / source.name
    if source.is_dir():
        shutil.copytree(source, copy)
    else:
        shutil.copy(source, copy)
    files = [path for path in copy.rglob("*") if path.is_file()] if copy.is_dir() else [copy]
    for old, new in zip(before, after, strict=True):
        assert old.shape == new.shape, "every scale keeps its length"
        if old.tobytes() == new.tobytes():
            continue
        holders = [path for path in files if path.read_bytes().count(old.tobytes()) == 1]
        assert len(holders) == 1, "every scale is found once"
        holders[0].write_bytes(holders[0].read_bytes().replace(old.tobytes(), new.tobytes()))
    return copy


def _stored(norm: normsniff.NormParameters) -> NDArray[np.float64]:
    stored = norm.stored
    assert stored is not None
    return np.asarray(stored, np.float64)


def llama(blocks: int = 6, d: int = 64, seed: int = 0, *, query_key: bool = False) -> dict[str, NDArray[Any]]:
    """Return a state dict as a trained Llama's, scales in bfloat16 spread about 1."""
    rng = np.random.default_rng(seed)

    def scale(n: int) -> NDArray[Any]:
        return rng.normal(1, 0.2, n).astype(ml_dtypes.bfloat16).astype(np.float32)

    def matrix(rows: int, columns: int) -> NDArray[Any]:
        return rng.normal(0, 0.02, (rows, columns)).astype(np.float16)

    state = {"model.embed_tokens.weight": matrix(96, d), "model.norm.weight": scale(d)}
    for i in range(blocks):
        block = f"model.layers.{i}"
        state |= {f"{block}.{norm}.weight": scale(d) for norm in ("input_layernorm", "post_attention_layernorm")}
        state |= {f"{block}.self_attn.{name}_proj.weight": matrix(d, d) for name in "qkvo"}
        state |= {f"{block}.mlp.{name}_proj.weight": matrix(2 * d, d) for name in ("gate", "up")}
        state[f"{block}.mlp.down_proj.weight"] = matrix(d, 2 * d)
        if query_key:
            state |= {f"{block}.self_attn.{name}_norm.weight": scale(16) for name in "qk"}
    return state


CONFIG: Mapping[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, "num_hidden_layers": 6,
}  # fmt: skip


def save(state: Mapping[str, NDArray[Any]], config: Mapping[str, Any] | None, folder: Path) -> Path:
    """Write a directory with model.safetensors and config.json; return it."""
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder


@dataclass(frozen=True)
class StateFault:
    """A fault of names, shapes, types or the configuration of the model that `llama` makes.

    Attributes:
        name: of the injector.
        code: what must be found.
        severity: and how grave.
        change: takes a state dict and a configuration, and changes them.
        norms: names of which the finding must speak; empty if it is about the file.
    """

    name: str
    code: str
    severity: str
    change: Callable[[dict[str, NDArray[Any]], dict[str, Any]], object]
    norms: Sequence[str] = ()


def _without(state: dict[str, NDArray[Any]], *names: str) -> None:
    for name in names:
        del state[name]


_EIGHT_BITS = ml_dtypes.float8_e4m3fn
_MIDDLE = "model.layers.3.post_attention_layernorm"
STATE_FAULTS = (
    StateFault("the final norm is missing", "missing", "error", lambda s, _: _without(s, "model.norm.weight")),
    StateFault("a norm is missing", "missing", "error", lambda s, _: _without(s, f"{_MIDDLE}.weight")),
    StateFault(
        "a shift too many", "foreign", "error", lambda s, _: s.update({f"{_MIDDLE}.bias": np.ones(64, np.float32)}),
        [_MIDDLE],
    ),
    StateFault(
        "shifts in a family without", "foreign", "error",
        lambda s, _: s.update({k.replace(".weight", ".bias"): v - 1 for k, v in s.items() if "norm.weight" in k}),
        ["model.layers.0.input_layernorm", "model.norm"],
    ),
    StateFault(
        "a family with shifts", "missing", "error", lambda _, c: c.update(model_type="gpt2", architectures=[]),
        ["model.norm"],
    ),
    StateFault(
        "a part of a scale", "shape", "error",
        lambda s, _: s.update({f"{_MIDDLE}.weight": s[f"{_MIDDLE}.weight"][:32]}),
        [_MIDDLE],
    ),
    StateFault(
        "all scales sharded", "shape", "warning",
        lambda s, _: s.update({k: v[:24] for k, v in s.items() if k.endswith("norm.weight")}),
        ["model.layers.0.input_layernorm"],
    ),
    StateFault(
        "scales in eight bits", "dtype", "warning",
        lambda s, _: s.update({k: v.astype(_EIGHT_BITS) for k, v in s.items() if k.endswith("norm.weight")}),
    ),
    StateFault(
        "one scale in half precision", "dtype", "warning",
        lambda s, _: s.update({f"{_MIDDLE}.weight": s[f"{_MIDDLE}.weight"].astype(np.float16)}), [_MIDDLE],
    ),
    StateFault("no epsilon", "epsilon", "note", lambda _, c: c.pop("rms_norm_eps")),
    StateFault("epsilon zero", "epsilon", "warning", lambda _, c: c.update(rms_norm_eps=0.0)),
    StateFault("epsilon 1e5", "epsilon", "error", lambda _, c: c.update(rms_norm_eps=1e5)),
    StateFault("epsilon negative", "epsilon", "error", lambda _, c: c.update(rms_norm_eps=-1e-5)),
    StateFault(
        "too large for the type of the configuration", "huge", "error",
        lambda s, c: (c.update(torch_dtype="float16"), s[f"{_MIDDLE}.weight"].__setitem__(4, 1e5)), [_MIDDLE],
    ),
)  # fmt: skip
