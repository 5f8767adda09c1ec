"""Build HTML and SVG as a tree, so that all text is escaped by construction."""

from collections.abc import Iterable
from xml.etree import ElementTree

from facescale.guard.shown import shown_lines

Element = ElementTree.Element
Child = str | Element | Iterable["str | Element"]


def el(tag: str, *children: Child, **attributes: object) -> Element:
    """An element; ``class_`` and ``for_`` lose their underscore, other underscores become hyphens.

    Attributes that are None or False are left out, True stands without value.
    """
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None and value is not False:
            key = name.rstrip("_").replace("_", "-")
            element.set(key, "" if value is True else shown_lines(str(value)))
    for child in children:
        for part in [child] if isinstance(child, str | Element) else child:
            _append(element, part)
    return element


def document(root: Element) -> str:
    """Text of a whole HTML page."""
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"


def _append(element: Element, part: str | Element) -> None:
    part = shown_lines(part) if isinstance(part, str) else part
    if isinstance(part, Element):
        element.append(part)
    elif len(element):
        element[-1].tail = (element[-1].tail or "") + part
    else:
        element.text = (element.text or "") + part
