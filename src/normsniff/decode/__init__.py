"""Where samples lie in stored bytes, and the numbers that these stand for."""

from .values import Block, Float32, Strips, blocks, is_decodable, numbers, read, spread, strips, vectors

__all__ = [
    "Block",
    "Float32",
    "Strips",
    "blocks",
    "is_decodable",
    "numbers",
    "read",
    "spread",
    "strips",
    "vectors",
]
