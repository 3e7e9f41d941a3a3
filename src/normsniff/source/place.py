"""The type of where a file is: on this machine or behind a URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .remote.paths import RemotePath

Place: TypeAlias = "Path | RemotePath"
