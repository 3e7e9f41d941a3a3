"""The mathematics of the dead direction. Arrays in, numbers out; no file is known here."""

from .shadow import DRAWS, DeadDirection, Shadow, dead_direction, shadow

__all__ = ["DRAWS", "DeadDirection", "Shadow", "dead_direction", "shadow"]
