"""The configuration that lies beside a model."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .. import json_text, meter
from ..checkpoint import Checkpoint
from ..errors import BudgetSpent, FormatError, LimitExceeded, NormsniffError, SourceError, parsing
from ..formats import Format, by_name
from ..limits import Limits
from ..source.local import ByteSource
from ..source.place import Place
from ..source.places import is_file, is_inside, open_file


def with_config(checkpoint: Checkpoint, path: Place, limits: Limits, opened: contextlib.ExitStack) -> Checkpoint:
    """Attach the first configuration that lies beside the model."""
    row = by_name(checkpoint.format)
    if row is None:
        return checkpoint
    for root, candidate in _candidates(row, path.parent):
        if not is_file(candidate):
            continue
        try:
            config, source = _read_config(root, candidate, limits, opened)
        except BudgetSpent:
            raise
        except NormsniffError as error:
            return replace(checkpoint, warnings=(*checkpoint.warnings, f"the configuration is not used: {error}"))
        found = replace(checkpoint, config=config, sources=(*checkpoint.sources, source))
        if row.own_config:
            found = importlib.import_module(row.module).configured(found)
        return found
    return checkpoint


def _candidates(row: Format, directory: Place) -> Iterator[tuple[Place, Place]]:
    """Yield (directory that must hold it, file)."""
    for one in row.configs:
        folder, _, name = one.rpartition("/../")
        if not folder:
            yield directory, directory.joinpath(name)
        elif directory.name == folder:
            yield directory.parent, directory.parent.joinpath(name)


def _read_config(
    root: Place, path: Place, limits: Limits, opened: contextlib.ExitStack
) -> tuple[dict[str, Any], ByteSource]:
    if not is_inside(root, path):
        raise SourceError(str(path), "a symbolic link that leaves the model's directory")
    source = open_file(path)
    opened.callback(source.close)
    if source.size > limits.value_bytes:
        raise LimitExceeded(str(path), "bytes of the configuration", limits.value_bytes, source.size)
    with parsing(str(path)):
        config = json_text.decode(bytes(source.read_at(0, source.size)), "the configuration")
    if not isinstance(config, dict):
        raise FormatError("bad-config", str(path), "not a JSON object")
    if _is_deeper(config, limits.nesting):
        raise FormatError("too-deep", str(path), f"nested deeper than {limits.nesting} levels")
    return config, source


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        meter.charge(len(layer), "measuring how deep a configuration is")
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not layer:
            return False
    return True
