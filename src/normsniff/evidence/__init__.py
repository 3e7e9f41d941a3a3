"""Three kinds of evidence, gathered apart so that they can contradict each other.

- *declared*: what the file says: operators, layer classes, architecture, configuration keys.
- *layout*: what is stored: shifts or no shifts.
- *kernel*: what training wrote into the weights around the norms.
"""

from __future__ import annotations

from .declared import architecture_of, family_of, from_declarations
from .kernel import from_shadows, is_quiet
from .layout import from_layout
from .weights import Weights, load_weights

__all__ = [
    "Weights",
    "architecture_of",
    "family_of",
    "from_declarations",
    "from_layout",
    "from_shadows",
    "is_quiet",
    "load_weights",
]
