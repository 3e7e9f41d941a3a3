"""What is known of architectures before any file is read."""

from .facts import (
    Fact,
    counts,
    ends_in_norm,
    epsilon_of,
    fact_of,
    from_config,
    gguf_architecture,
    model_type,
    projector,
)

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
