"""The HTML report."""

from .page import page

__all__ = ["page"]
