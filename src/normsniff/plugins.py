"""What other packages add, under entry-point groups of ours: looked up when our own tables do not know a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import FormatError, parsing

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def offered(kind: str) -> dict[str, EntryPoint]:
    """Return what installed packages offer as `kind` ("formats", "families", "outputs", "commands"), by name.

    The metadata of all installed packages are searched, which takes longer than most headers.
    """
    from importlib.metadata import entry_points

    points = entry_points(group=f"normsniff.{kind}")
    return {point.name: point for point in sorted(points, key=lambda point: point.name)}


def load(point: EntryPoint, kind: type[Any], called: str) -> Any:
    """Import what an entry point names.

    Args:
        point: one that is offered.
        kind: the class that its object must be of.
        called: what to call such an object in the message.

    Raises:
        FormatError: it cannot be imported, or is something else.
    """
    with parsing(f"plug-in {point.name}"):
        found = point.load()
    if not isinstance(found, kind):
        raise FormatError("bad-plugin", f"plug-in {point.name}", f"{point.value} is not {called}")
    return found
