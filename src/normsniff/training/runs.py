"""The checkpoints of a training run: found below the paths given, and put in the order of training."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import NormsniffError
from ..inputs.filenames import is_training_state
from ..inputs.walk import survey
from ..limits import Limits
from ..sorting import natural
from ..source.places import is_directory

# Trainer writes checkpoint-500, Lightning epoch=3-step=1200.ckpt, DeepSpeed global_step1000, Megatron iter_0001000.
_WORDS = tuple(
    re.compile(rf"(?<![a-z])(?:{words})[-_=. ]?(\d{{1,18}})([km])?(?![a-z0-9])", re.IGNORECASE)
    for words in ("global[-_]?step|steps?|iter(?:ation)?s?|updates?", "checkpoint|ckpt", "epochs?")
)
_BARE = re.compile(r"(?:[a-z_-]*[-_])?(\d{1,18})", re.IGNORECASE)  # not the 0 of gpt2.Q8_0
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
_SHARD = re.compile(r"-\d+-of-\d+")
_PARTS = 3  # the file's name and the directories it lies in, as in global_step1000/actor/model.safetensors
_STATE_BYTES = 1 << 26  # its log history grows with training, by some 100 bytes a logged step
_SUFFIXES = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".keras", ".h5", ".msgpack", ".npz", ".tflite"}
)


@dataclass(frozen=True, slots=True)
class Stored:
    """One checkpoint of a run.

    Attributes:
        path: the model file, the first of its shards, or their index.
        step: how far training had come; None if neither its name nor a file beside it tells.
        error: why there is no model at `path`, or None.
    """

    path: Path
    step: int | None
    error: NormsniffError | None = None


def find(paths: Iterable[Path], limits: Limits | None = None) -> list[Stored]:
    """Return the checkpoints that the paths stand for, by step; those without a step come last, by name.

    A directory stands for every checkpoint below it, even if it is a model itself. Equal steps are ordered by name;
    numbers in names count as numbers. A path without a model becomes an entry with the error.
    """
    found = {one.path: one for path in paths for one in _look(path, limits or Limits())}
    return sorted(found.values(), key=lambda one: (one.step is None, one.step or 0, natural(str(one.path))))


def step_of(path: Path) -> int | None:
    """Return the step of a checkpoint, or None.

    The rule: the number after ``step``, ``iter`` or ``update``, else after ``checkpoint`` or ``ckpt``, else after
    ``epoch``, in the file's name or in one of the two directories above it, nearest first (``10k`` is 10,000); else
    ``global_step`` of a trainer_state.json beside the file; else the number in a file's or directory's name that
    is a number, or letters and a number (``0001000``, ``weights_200``).
    """
    parts = [_SHARD.sub("", part) for part in reversed(path.parts[-_PARTS:])]
    for pattern in _WORDS:
        for part in parts:
            if match := pattern.search(part):
                return int(match[1]) * _UNITS[(match[2] or "").lower()]
    if (step := _recorded(path if is_directory(path) else path.parent)) is not None:
        return step
    names = [parts[0].removesuffix(path.suffix), *parts[1:2]] if parts else []
    return next((int(match[1]) for name in names if (match := _BARE.fullmatch(name))), None)


class _TrainerState(msgspec.Struct):
    global_step: int


def _recorded(directory: Path) -> int | None:
    state = directory / "trainer_state.json"
    try:
        if not state.is_file() or state.stat().st_size > _STATE_BYTES:
            return None
        return msgspec.json.decode(state.read_bytes(), type=_TrainerState).global_step
    except (OSError, ValueError, RecursionError):  # it only helps: without it the name decides
        return None


def _look(path: Path, limits: Limits) -> Iterator[Stored]:
    """Yield the models below a path, and what is named like a checkpoint of the run but is no readable model."""
    try:
        found = survey(path, limits)
    except NormsniffError as error:
        yield Stored(path, step_of(path), error)
        return
    yield from (Stored(one.path, step_of(one.path)) for one in found.inputs)
    homes = {one.path.parent for one in found.inputs}
    for skipped, _ in found.skipped:
        if skipped.is_symlink() or is_training_state(skipped.name):
            continue
        if is_directory(skipped):
            if _is_step(skipped.name):
                yield from _look(skipped, limits)
        elif skipped.suffix.lower() in _SUFFIXES and (
            _is_step(skipped.stem) or (skipped.parent not in homes and _is_step(skipped.parent.name))
        ):
            yield Stored(skipped, step_of(skipped))


def _is_step(name: str) -> bool:
    return any(pattern.search(name) for pattern in _WORDS) or _BARE.fullmatch(name) is not None
