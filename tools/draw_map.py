"""Draw docs/pictures/map.svg and write the table of docs/map.md, both from the sources: python -m tools.draw_map.

Rooms stand on floors: each knows only rooms above it. A line leads down to a room from one that it knows, unless it
also knows that one through another (the transitive reduction); the ground, which everyone may use, has no lines.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tools.rooms import House, floors

DOCS = Path(__file__).parents[1] / "docs"
PICTURE, PAGE = DOCS / "pictures" / "map.svg", DOCS / "map.md"
_BEGIN, _END = "<!-- rooms: python -m tools.draw_map -->\n", "<!-- end of rooms -->\n"

_WIDTH, _LEFT = 960, 20  # of the picture; half of it is the width of a page
_FLOOR, _BOX = 62, 34  # height of a floor, of a box on it
_LETTER = 7.6  # width of a letter of 13 pixels in the fonts below
_SWEEPS = 24  # of ordering by neighbours; no picture changed after 10

_STYLE = """
  text { font: 13px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif; fill: #1f2328; text-anchor: middle; }
  .small { font-size: 11px; fill: #59636e; }
  .page { fill: #fff; stroke: none; rx: 0; }
  .box { fill: #f6f8fa; stroke: #59636e; rx: 6px; }
  .inner { fill: #fff; stroke-dasharray: 4 2; }
  .ground { fill: #ddf4ff; stroke: #0969da; rx: 6px; }
  path { fill: none; stroke: #8c959f; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; }
    .page { fill: #0d1117; }
    .box { fill: #21262d; stroke: #9198a1; } .inner { fill: #0d1117; } .ground { fill: #0c2d6b; stroke: #58a6ff; }
    path { stroke: #6e7681; }
  }
"""


def ground(arrows: Mapping[str, set[str]]) -> set[str]:
    """Return the modules beside the rooms that know nothing but each other: words that everyone may use."""
    found: set[str] = set()
    for _ in arrows:
        found |= {room for room in arrows if "__" not in room and room in _SINGLE and arrows[room] <= found}
    return found


HOUSE = House()
_SINGLE = {name for name, path in HOUSE.modules.items() if path.parent == HOUSE.root}


def reduced(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the arrows without those that a longer way replaces."""

    def reach(room: str) -> set[str]:
        return arrows[room] | {far for near in arrows[room] for far in reach(near)}

    return {room: known - {far for near in known for far in reach(near)} for room, known in arrows.items()}


def named(room: str) -> str:
    """Return how the map calls a room; doors end in a slash."""
    return {"__init__": "import normsniff", "__main__": "python -m normsniff"}.get(room, room.replace(".__init__", "/"))


def subject(room: str) -> str:
    """Return the first sentence of a room's docstring."""
    name = room.removesuffix(".__init__") if room != "__init__" else room
    text = ast.get_docstring(ast.parse(HOUSE.modules[name].read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _rows(rooms: Mapping[str, set[str]]) -> tuple[list[list[str]], dict[str, list[str]]]:
    """Return floors of rooms, with a place held on every floor that a line crosses, and the ways of the lines.

    Neighbours on other floors pull: K. Sugiyama's barycentres, up and down in turn.
    """
    rows = floors(rooms)
    at = {room: height for height, row in enumerate(rows) for room in row}
    ways: dict[str, list[str]] = {}
    for room, known in reduced(rooms).items():
        for other in sorted(known):
            held = [f"{other}|{room}|{height}" for height in range(at[other] + 1, at[room])]
            for height, name in enumerate(held, at[other] + 1):
                rows[height].append(name)
            ways[f"{other}|{room}"] = [other, *held, room]
    steps = [pair for way in ways.values() for pair in itertools.pairwise(way)]
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        near: dict[str, list[str]] = {}
        for upper, lower in steps:
            near.setdefault(lower if down else upper, []).append(upper if down else lower)
        for row in rows if down else reversed(rows):
            place = {name: (i + 0.5) / len(each) for each in rows for i, name in enumerate(each)}
            pull = {n: sum(place[o] for o in near[n]) / len(near[n]) if n in near else place[n] for n in row}
            row.sort(key=lambda name: (pull[name], name))
    return rows, ways


def _wide(name: str) -> float:
    return 14 if "|" in name else max(60, _LETTER * len(named(name)) + 18)


def picture() -> str:
    """Return the map as SVG."""
    base = ground(HOUSE.arrows)
    rooms = {room: known - base for room, known in HOUSE.arrows.items() if room not in base and room != "__main__"}
    rows, ways = _rows(rooms)
    middle: dict[str, tuple[float, float]] = {}
    for height, row in enumerate(rows):
        gap = (_WIDTH - 2 * _LEFT - sum(map(_wide, row))) / (len(row) + 1)
        x = _LEFT + gap
        for name in row:
            middle[name] = (x + _wide(name) / 2, 100 + _FLOOR * height)
            x += _wide(name) + gap
    return "\n".join(_svg(sorted(base), rooms, ways, middle, 100 + _FLOOR * len(rows))) + "\n"


def _svg(
    base: Iterable[str],
    rooms: Iterable[str],
    ways: Mapping[str, list[str]],
    middle: Mapping[str, tuple[float, float]],
    height: float,
) -> Iterator[str]:
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">'
    yield "<title>The rooms of normsniff: data flows from the sources of bytes down to the command line</title>"
    yield f"<style>{_STYLE}</style>"
    yield f'<rect class="page" width="{_WIDTH}" height="{height}"/>'
    yield f'<rect class="ground" x="{_LEFT}" y="12" width="{_WIDTH - 2 * _LEFT}" height="{_BOX + 12}"/>'
    yield f'<text x="{_WIDTH / 2}" y="31">{" · ".join(base)}</text>'
    yield f'<text class="small" x="{_WIDTH / 2}" y="48">the ground: words that everyone may use</text>'
    for way in ways.values():
        points = [middle[name] for name in way]
        x, y = points[0]
        line = [f"M{x:.0f} {y + _BOX / 2:.0f}"]
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            top, bottom = y0 + _BOX / 2, y1 - _BOX / 2
            half = (top + bottom) / 2
            line.append(f"C{x0:.0f} {half:.0f} {x1:.0f} {half:.0f} {x1:.0f} {bottom:.0f}")
            line.append(f"V{y1 + _BOX / 2:.0f}" if (x1, y1) != points[-1] else "")
        yield f'<path d="{"".join(line)}"/>'
    for room in rooms:
        x, y = middle[room]
        kind = "box inner" if "." in room and not room.endswith("__init__") else "box"
        left, top, wide = x - _wide(room) / 2, y - _BOX / 2, _wide(room)
        yield f'<rect class="{kind}" x="{left:.0f}" y="{top:.0f}" width="{wide:.0f}" height="{_BOX}"/>'
        yield f'<text x="{x:.0f}" y="{y + 4.5:.0f}">{named(room)}</text>'
    yield "</svg>"


def table() -> str:
    """Return the rooms as a Markdown table, from the ground up."""
    lines = ["| room | subject | knows, beside the ground |", "|---|---|---|"]
    base = ground(HOUSE.arrows)
    for row in floors(HOUSE.arrows):
        for room in row:
            known = ", ".join(f"`{named(other)}`" for other in sorted(HOUSE.arrows[room] - base)) or "–"
            lines.append(f"| `{named(room)}` | {subject(room)} | {known} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return docs/map.md with its table as the sources have it."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    return before + _BEGIN + table() + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(PICTURE, PAGE)
