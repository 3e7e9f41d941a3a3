"""The mathematics of the dead direction. Arrays in, numbers out; no file is known here."""

from .learned import LearnedShadow, Peaks, learned, learned_shadow, log_ratio, peaks
from .shadow import DRAWS, DeadDirection, Shadow, dead_direction, shadow

__all__ = [
    "DRAWS",
    "DeadDirection",
    "LearnedShadow",
    "Peaks",
    "Shadow",
    "dead_direction",
    "learned",
    "learned_shadow",
    "log_ratio",
    "peaks",
    "shadow",
]
