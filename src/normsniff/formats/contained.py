"""Files with one model inside that lies there as it is: tar archives (NeMo's among them), and programs (llamafile)."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ..errors import FormatError, parsing
from ..limits import Limits
from ..source.local import ByteSource
from ..source.views import WindowSource
from . import archives, plain_yaml, tar

_PROGRAMS = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
"""ELF; Windows, and llamafile, which starts as a Windows program and as a shell script; Mach-O of two kinds."""

_CONFIG, _CONFIG_BYTES = "model_config.yaml", 1 << 20  # NeMo's; those of its largest models have 20 kB
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Contained:
    """What was found in a file that holds others.

    Attributes:
        model: the model inside, or None.
        notes: what is to be said: why there is none, or what else was there.
        settings: what a configuration beside it inside the file says.
    """

    model: WindowSource | None
    notes: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


def look_inside(
    source: ByteSource, limits: Limits, suffixes: Collection[str], is_model: Callable[[ByteSource], bool]
) -> Contained | None:
    """Look for the model inside a file.

    Args:
        source: the file.
        limits: caps on what lies in it.
        suffixes: how the names of models end; of others not a byte is read.
        is_model: test on what such a name belongs to.

    Returns:
        None if the file is nothing that holds others.

    Raises:
        FormatError: an archive that breaks the rules of tar.
        LimitExceeded: it asks for more than `limits` allows.
    """
    prefix = bytes(source.read_at(0, min(_PREFIX, source.size)))
    if prefix.startswith(tar.SIGNATURE, tar.SIGNATURE_AT):
        with parsing(source.name):
            windows = [WindowSource(source, one.start, one.size, one.name) for one in tar.members(source, limits)]
    elif prefix.startswith(_PROGRAMS):
        windows = _appended(source, limits)
        if not windows:
            return None
    else:
        return None
    named = [one for one in windows if PurePosixPath(_inner_name(one)).suffix.lower() in suffixes]
    model, notes = _choose([one for one in named if is_model(one)])
    return Contained(model, notes, _settings(windows) if model is not None else {})


_PREFIX = tar.SIGNATURE_AT + len(tar.SIGNATURE)


def _inner_name(window: WindowSource) -> str:
    return window.name.rpartition("!")[2]


def _appended(source: ByteSource, limits: Limits) -> list[WindowSource]:
    """Return the members of a zip archive at the end of a program that are stored as they are."""
    try:
        listed = archives.directory(source, limits)
    except FormatError:
        return []  # most programs
    stored = [info for info in listed.values() if info.compress_type == zipfile.ZIP_STORED and not info.is_dir()]
    return [archives.window(source, info) for info in stored]


def _choose(models: Sequence[WindowSource]) -> tuple[WindowSource | None, tuple[str, ...]]:
    """Return the one that stands for the whole file: the only one, one of like-named parts, or by far the largest."""
    if not models:
        return None, ("no model lies in it as it is",)
    if len(models) == 1:
        return models[0], ()
    listed = ", ".join(_inner_name(one)[:100] for one in models[:_SHOWN]) + (" ..." if len(models) > _SHOWN else "")
    parts = sorted(models, key=_inner_name)
    if len({PurePosixPath(_inner_name(one)).name for one in parts}) == 1:
        return parts[0], (f"one of {len(parts)} parts of a model in this file: the others are not read: {listed}",)
    largest = max(models, key=lambda one: one.size)
    if largest.size > sum(one.size for one in models) / 2:
        return largest, (f"the largest of {len(models)} models in this file, which stands for it: {listed}",)
    return None, (f"it holds {len(models)} models; unpack it and name one of them: {listed}",)


def _settings(windows: Sequence[WindowSource]) -> dict[str, Any]:
    config = next((one for one in windows if PurePosixPath(_inner_name(one)).name == _CONFIG), None)
    if config is None or config.size > _CONFIG_BYTES:
        return {}
    return plain_yaml.settings(bytes(config.read_at(0, config.size)).decode("utf-8", "replace"))
