"""The file system that a URL's scheme names."""

from __future__ import annotations

from ...limits import Limits
from .files import Files, Plain


def open_files(scheme: str, limits: Limits) -> Files:
    """Return the file system of a URL's scheme; a thread may get the one that it had before.

    Raises:
        ImportError: its package is not installed.
    """
    files: Files
    if scheme in ("http", "https"):
        from .http import RangedHTTP

        files = RangedHTTP(limits.whole_bytes, limits.request_seconds)
    elif scheme == "s3":
        from .s3 import PinnedS3

        files = PinnedS3(limits.request_seconds)
    elif scheme == "hf":
        from .hub import Hub

        files = Hub()
    else:
        import fsspec

        files = Plain(fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False))
    return files
