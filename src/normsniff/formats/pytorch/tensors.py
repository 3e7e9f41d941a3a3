"""PyTorch's notes in a pickle, understood: storages, views of them, and what a checkpoint calls them.

Builders are those of torch/_utils.py and torch/_tensor.py; a view is (storage, offset, shape, strides).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ... import meter
from ...checkpoint import MOST_AXES
from ...dtypes import BY_NAME
from ...errors import FormatError, LimitExceeded
from ...limits import Limits
from .pickle_notes import Call, GlobalName, Persistent, is_container

_STORAGES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128", "QInt8Storage": "I8",
    "QUInt8Storage": "U8", "QInt32Storage": "I32", "UntypedStorage": "U8", "TypedStorage": "U8",
}  # fmt: skip
DTYPES = {
    **BY_NAME,
    "float": "F32", "double": "F64", "half": "F16", "long": "I64", "int": "I32", "short": "I16", "qint8": "I8",
    "quint8": "U8", "qint32": "I32",
}  # fmt: skip
_BUILDERS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")
# calls whose result is their first argument, or nearly
_TRANSPARENT = frozenset(
    {
        "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer", "torch.nn.Parameter", "torch._utils._rebuild_device_tensor_from_cpu_tensor",
        "torch.jit._pickle.restore_type_tag",
    }
)  # fmt: skip
_SUBCLASSED = frozenset({"torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2"})
_NO_VALUES = "torch._utils._rebuild_meta_tensor_no_storage"
_INERT = re.compile(
    r"torch(\._utils|\._tensor)\._rebuild_\w+|torch\.(Size|device|Tensor|per_\w+|strided|sparse_\w+|_get_layout)"
    r"|torch\.serialization\._get_layout|torch\.jit\._pickle\.\w+|torch\.(storage\.)?\w*(Storage|memory_format)"
    r"|numpy(\._?core)?\.(multiarray|numeric)\.(_reconstruct|scalar|_frombuffer)|numpy\.(ndarray|dtype)"
    r"|numpy\.dtypes\.\w+|_codecs\.encode|__torch__\.[\w.]+|__torch__(\.\w+)*|torch\.nn\.parameter\.(Parameter|Buffer)"
)
_WRAPPED = 8  # calls around one tensor; PyTorch writes two
_NAME_CHARACTERS = 1000
# What else a training run saves beside the weights, by the key that it has.
_TRAINING = re.compile(
    r"(last_)?optim(izer)?s?(_?(states?|history|dict))*+|opt_state|(lr_?)?schedulers?(_?(states?|dict))*+"
    r"|(grad_?)?scaler|amp|callbacks|loops|(rng|random)_?states?|exp_avg(_sq)?|momentum_buffer|trainer|train_state",
    re.IGNORECASE,
)
_AVERAGED = re.compile(
    r"(model|state_dict|params|net|generator|g|weights)?[_-]?ema([_-]?(model|state_dict|state|params|weights|dict))*+"
    r"|averaged?_model|teacher",
    re.IGNORECASE,
)
_WRAPPERS = frozenset(
    {
        "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "params", "weights",
        "params_ema", "ema", "model_ema",
    }
)  # fmt: skip
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers that lie outside of the pickle: ``("storage", type, key, device, count[, view])``."""

    dtype: str
    key: str
    offset: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: elements of a storage.

    Attributes:
        dtype: a key of `UNITS`.
        storage: where the elements are.
        offset: first element.
        shape: elements along each axis.
        strides: elements from one position to the next along each axis.
        quantiser: (scale, zero point, axis) of quantised integers; numbers, or views and an axis.
    """

    dtype: str
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    quantiser: tuple[Any, Any, int | None] | None = None


def storage_of(note: object) -> Storage | None:
    """Understand what a pickle says of an object outside of it; None if that is no storage we know."""
    key = note.key if isinstance(note, Persistent) else None
    if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or not isinstance(key[1], GlobalName):
        return None
    dtype = _STORAGES.get(key[1].name)
    if dtype is None or not isinstance(key[2], str):
        return None
    view = key[5] if len(key) > 5 else None  # before 1.6: (its own key, offset, size)
    offset = view[1] if isinstance(view, tuple) and len(view) == 3 else 0
    return Storage(dtype, key[2], offset) if _is_count(offset) else None


def tensor_of(note: object) -> View | str | None:
    """Understand a call as a tensor.

    Returns:
        the view; the reason why the tensor cannot be read; or None if it is no tensor.
    """
    for _ in range(_WRAPPED):
        if (
            not isinstance(note, Call)
            or not isinstance(note.function, GlobalName)
            or not isinstance(note.arguments, tuple)
        ):
            return None
        asked, arguments = str(note.function), note.arguments
        if asked in _TRANSPARENT and arguments:
            note = arguments[0]
        elif asked in _SUBCLASSED and len(arguments) >= 3:
            note = Call(arguments[0], arguments[2])
        else:
            break
    if asked.endswith("multiarray._reconstruct"):
        return "an array of NumPy inside the pickle"
    if asked == _NO_VALUES:
        return "no values are stored for it (meta device)"
    if not asked.startswith("torch._utils._rebuild_"):
        return None
    builder = asked.removeprefix("torch._utils.")
    if builder not in _BUILDERS:
        return f"{builder.removeprefix('_rebuild_').replace('_', ' ')}: a layout that is not read"
    return _view(builder, arguments) or "what the pickle says of it is malformed, or of an unknown type"


def _view(builder: str, arguments: tuple[Any, ...]) -> View | None:
    if len(arguments) < 4:
        return None
    storage, (offset, shape, strides) = storage_of(arguments[0]), arguments[1:4]
    shape, strides = counts(shape), counts(strides)
    if storage is None or shape is None or strides is None or len(shape) != len(strides) or not _is_count(offset):
        return None
    dtype: str | None = storage.dtype
    quantiser = None
    if builder == "_rebuild_tensor_v3":
        asked = arguments[6] if len(arguments) > 6 else None
        dtype = DTYPES.get(asked.name) if isinstance(asked, GlobalName) and asked.module == "torch" else None
    elif builder == "_rebuild_qtensor":
        quantiser = _quantiser(arguments[4] if len(arguments) > 4 else None)
        if quantiser is None:
            return None
    return View(dtype, storage, offset, shape, strides, quantiser) if dtype is not None else None


def _quantiser(given: object) -> tuple[Any, Any, int | None] | None:
    if not isinstance(given, tuple) or len(given) < 3 or not isinstance(given[0], GlobalName):
        return None
    scheme, scale, zero = given[0].name, given[1], given[2]
    if scheme == "per_tensor_affine" and isinstance(scale, int | float) and isinstance(zero, int):
        return scale, zero, None
    if scheme == "per_channel_affine" and len(given) > 3 and _is_count(given[3]):
        views = tensor_of(scale), tensor_of(zero)
        return (*views, given[3]) if all(isinstance(view, View) for view in views) else None
    return None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def counts(value: object) -> tuple[int, ...] | None:
    """Return a shape, strides or offsets as a tuple; None if a pickle says anything else."""
    if isinstance(value, Call) and str(value.function) == "torch.Size" and isinstance(value.arguments, tuple):
        value = value.arguments[0] if len(value.arguments) == 1 else None
    if isinstance(value, list | tuple) and len(value) <= MOST_AXES and all(map(_is_count, value)):
        return tuple(value)
    return None


def place_in_run(name: str) -> str:
    """Say what a tensor is in a training run, by the first two words of its name; "" for a weight of the model."""
    words = name.split(".")[:2]
    if any(_TRAINING.fullmatch(word) for word in words):
        return "state of a training run"
    return "averaged copies of the weights" if any(_AVERAGED.fullmatch(word) for word in words) else ""


def strange_names(names: Iterable[GlobalName]) -> list[str]:
    """Return what a pickle asks for beyond tensors, numbers and containers."""
    return [
        str(name)
        for name in names
        if not is_container(name)
        and not (name.module == "torch" and name.name in DTYPES)
        and not _INERT.fullmatch(str(name))
    ]


@dataclass(slots=True)
class Tensors:
    """All tensors of a pickle by name, and what was passed over.

    Attributes:
        views: tensors in the order of the file.
        unread: names of tensors that cannot be read, by reason.
        training: keys whose contents are no weights of the model.
        averaged: keys that hold another copy of the weights.
        twice: names that two tensors have; the first counts.
        unnamed: tensors whose names are too long.
    """

    views: dict[str, View] = field(default_factory=dict)
    unread: dict[str, list[str]] = field(default_factory=dict)
    training: list[str] = field(default_factory=list)
    averaged: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    unnamed: int = 0


def collect(root: object, limits: Limits, file: str) -> Tensors:
    """Walk all containers and objects of a pickle once, and name the tensors by the keys on the way, with dots.

    A single outer container with a customary name (``state_dict``, ``model``) adds nothing to the names.
    """
    walk = _ObjectWalk(limits, file)
    if not isinstance(root, dict):
        walk.visit(root, "", 0)
        return walk.found
    carriers: list[str] = []
    averaged: dict[str, object] = {}
    for key, value in root.items():
        if _TRAINING.fullmatch(key):  # a tensor too: the state of a random generator is one
            walk.found.training.append(key)
            continue
        if _AVERAGED.fullmatch(key) and not tensor_of(value):
            averaged[key] = value
            continue
        before = len(walk.found.views)
        walk.visit(value, key, 1)
        if len(walk.found.views) > before:
            carriers.append(key)
    for key, value in averaged.items():
        if carriers:
            walk.found.averaged.append(key)
            continue
        walk.visit(value, key, 1)
        if walk.found.views:
            carriers.append(key)
    if len(carriers) == 1 and carriers[0] in _WRAPPERS and carriers[0] not in walk.found.views:
        views = walk.found.views
        walk.found.views = {name.removeprefix(f"{carriers[0]}."): view for name, view in views.items()}
    return walk.found


class _ObjectWalk:
    def __init__(self, limits: Limits, file: str) -> None:
        self.found = Tensors()
        self._file = file
        self._limits = limits
        self._seen: set[int] = set()  # containers, which all live as long as the pickle's value

    def visit(self, value: object, name: str, depth: int) -> None:
        """Note every tensor at or below `value`; what was seen already has its names."""
        if not isinstance(value, Call | dict | list | tuple):
            return
        tensor = tensor_of(value)
        if isinstance(tensor, View):
            self._add(name or "tensor", tensor)
        elif tensor is not None:
            self.found.unread.setdefault(tensor, []).append(name[:_NAME_CHARACTERS])
        elif value and id(value) not in self._seen:
            self._seen.add(id(value))
            if depth > self._limits.nesting:
                raise FormatError(
                    "too-deep", name[:200], f"containers nested deeper than {self._limits.nesting} levels"
                )
            for key, inner in meter.counted(_entries(value), "walking containers", 2):
                self.visit(inner, _join(name, key), depth + 1)

    def _add(self, name: str, view: View) -> None:
        if len(name) > _NAME_CHARACTERS:
            self.found.unnamed += 1
        elif name in self.found.views:
            self.found.twice.append(name)
        else:
            self.found.views[name] = view
            meter.charge_tensors(3, "noting tensors")
            if len(self.found.views) > self._limits.tensors:
                raise LimitExceeded(self._file, "tensors", self._limits.tensors, len(self.found.views))


def _entries(value: Call | dict[str, Any] | list[Any] | tuple[Any, ...]) -> Iterable[tuple[str, object]]:
    """Return what a container or an object holds, by the key that stands in names; "" adds nothing to them."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple):
        return ((str(i), inner) for i, inner in enumerate(value))
    state = value.state
    if isinstance(state, dict) and any(part in state for part in _MODULE_PARTS):  # torch.nn.Module
        return (("", state[part]) for part in _MODULE_PARTS if part in state)
    return (("", state),)


def _join(name: str, key: str) -> str:
    if not key or len(name) > _NAME_CHARACTERS:
        return name
    return f"{name}.{key}" if name else key
