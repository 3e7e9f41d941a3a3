"""Where samples lie in stored bytes, and the numbers that these stand for."""

from .blocks import Block, Strips, blocks, spread, strips
from .values import exact, is_decodable, numbers, read, vectors

__all__ = ["Block", "Strips", "blocks", "exact", "is_decodable", "numbers", "read", "spread", "strips", "vectors"]
