"""Pages of links, which is how HTTP servers show directories."""

from __future__ import annotations

import re
from urllib.parse import unquote, urljoin

from .answers import MOST_ENTRIES, Entry, RefusedError

_TAG = re.compile(rb"<a\s([^<>]*)", re.IGNORECASE)  # each byte is in one tag at most, and looked at once for it
_LINK = re.compile(rb"""(?:^|\s)href\s*+=\s*+["']([^"'#?]++)""", re.IGNORECASE)
_LONGEST_LINK = 4_096  # bytes, as of a path
_MOST_LINKS = 5 * MOST_ENTRIES  # an icon, a name, and what sorts; resolving one takes some microseconds


def entries_of_page(page: bytes, address: str) -> list[Entry]:
    """Return what the links of a page name that lies directly below it.

    Args:
        page: HTML.
        address: where it was found.

    Raises:
        RefusedError: there are too many links.
    """
    base = address.partition("?")[0]
    base = base if base.endswith("/") else base + "/"
    found: dict[str, bool] = {}
    looked = 0
    for tag in _TAG.finditer(page):
        link = _LINK.search(tag[1])
        if link is None or len(link[1]) > _LONGEST_LINK:
            continue
        looked += 1
        if looked > _MOST_LINKS or len(found) > MOST_ENTRIES:
            raise RefusedError(f"more than {min(looked - 1, MOST_ENTRIES):,} links on one page")
        try:
            below = urljoin(base, link[1].decode("utf-8", "replace"))
        except ValueError:  # a bracket that nothing closes
            continue
        name = unquote(below.removeprefix(base).rstrip("/"))
        if name and "/" not in name and name not in (".", ".."):
            found[name] = below.endswith("/")
    return [Entry(name, is_directory) for name, is_directory in found.items()]
