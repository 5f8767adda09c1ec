"""Build HTML and SVG as a tree, so that all text is escaped by construction."""

import re
from collections.abc import Iterable
from xml.etree import ElementTree

Element = ElementTree.Element
Child = str | Element | Iterable["str | Element"]

# Control characters, line separators, marks that turn the direction of text, surrogates, byte order marks.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def el(tag: str, *children: Child, **attributes: object) -> Element:
    """An element; ``class_`` and ``for_`` lose their underscore, other underscores become hyphens.

    Attributes that are None or False are left out, True stands without value. Characters that cannot be seen
    are written as escapes, so that no name of a file looks like another one or breaks the page.
    """
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None and value is not False:
            key = name.rstrip("_").replace("_", "-")
            element.set(key, "" if value is True else visible(str(value)))
    for child in children:
        for part in [child] if isinstance(child, str | Element) else child:
            _append(element, part)
    return element


def visible(text: str) -> str:
    r"""Text with characters that cannot be seen as escapes: ``\x07``; ``\xff`` for a byte not UTF-8."""
    return _UNSEEN.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python stands for a byte of a file name
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def document(root: Element) -> str:
    """Text of a whole HTML page."""
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"


def raw(tag: str, text: str) -> Element:
    """A ``style`` or ``script`` of our own, which HTML does not escape."""
    element = Element(tag)
    element.text = text
    return element


def _append(element: Element, part: str | Element) -> None:
    if isinstance(part, Element):
        element.append(part)
        return
    part = visible(part)
    if len(element):
        element[-1].tail = (element[-1].tail or "") + part
    else:
        element.text = (element.text or "") + part
