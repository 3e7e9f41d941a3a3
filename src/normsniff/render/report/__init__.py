"""The HTML report."""

from .page import article, page

__all__ = ["article", "page"]
