"""The mathematics of the dead direction. Arrays in, numbers out; no file is known here."""

from .learned import LearnedShadow, Peaks, learned, learned_shadow, log_ratio, peaks
from .shadow import DRAWS, ScaleKernel, ShadowEnergy, dead_direction, shadow

__all__ = [
    "DRAWS",
    "LearnedShadow",
    "Peaks",
    "ScaleKernel",
    "ShadowEnergy",
    "dead_direction",
    "learned",
    "learned_shadow",
    "log_ratio",
    "peaks",
    "shadow",
]
