"""What is known of architectures before any file is read."""

from .architectures import gguf_architecture, projector
from .configurations import ends_in_norm, fact_of, from_config, model_type
from .facts import Fact, counts, epsilon_of

__all__ = [
    "Fact",
    "counts",
    "ends_in_norm",
    "epsilon_of",
    "fact_of",
    "from_config",
    "gguf_architecture",
    "model_type",
    "projector",
]
