"""HTML and SVG as trees: escaped when they are written, because names in a model file are hostile text."""

from __future__ import annotations

from xml.etree.ElementTree import Element

Child = Element | str | None


def element(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """Return an element. ``class_`` gives class, ``stroke_width`` stroke-width; what is None is left out."""
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    found = Element(tag, {names[key]: _text(value) for key, value in attributes.items() if value is not None})
    for child in children:
        if isinstance(child, str):
            child = _printable(child)
            if len(found):
                found[-1].tail = (found[-1].tail or "") + child
            else:
                found.text = (found.text or "") + child
        elif child is not None:
            found.append(child)
    return found


def _text(value: str | float) -> str:
    return f"{value:.5g}" if isinstance(value, float) else _printable(str(value))


def _printable(text: str) -> str:
    """Replace control characters, which neither HTML nor a reader can take."""
    return "".join(ch if ch.isprintable() or ch in "\n\t" else "�" for ch in text)
