"""Text from elsewhere (names of files, values of files) made safe to print, to log and to open in a table.

The name of a file may hold escape sequences that change a terminal, line ends that fake a line of a log, or
marks that reverse the order of letters; a cell of a CSV that begins with "=" is run by spreadsheets.
"""

import re
import reprlib
from typing import Any

# Control characters, marks of writing direction, separators of lines
_CONTROL = "\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
_BYTES = "\ud800-\udfff"  # how Python spells bytes of a name that are not UTF-8
_KEEPING_BYTES = re.compile(f"[{_CONTROL}]")
_IN_A_LINE = re.compile(f"[{_CONTROL}{_BYTES}]")
_IN_LINES = re.compile(f"(?![\n\t])[{_CONTROL}{_BYTES}]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def shown(text: str) -> str:
    """``text`` on one line: what could act on a terminal or fake a line becomes an escape."""
    return _IN_A_LINE.sub(_escape, text)


def shown_lines(text: str) -> str:
    """As `shown`, but line ends and tabs stay."""
    return _IN_LINES.sub(_escape, text)


def escaped(text: str) -> str:
    """As `shown`, but bytes that are not UTF-8 stay: for files in which names are spelled as they are."""
    return _KEEPING_BYTES.sub(_escape, text)


def csv_cell(text: str) -> str:
    """Text as a cell of a CSV that no spreadsheet takes for a formula: a quote goes before it.

    `from_csv_cell` takes the quote off again.
    """
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def from_csv_cell(cell: str) -> str:
    """The text that `csv_cell` was given."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


_brief = reprlib.Repr()
_brief.maxlevel = 4
_brief.maxlist = _brief.maxtuple = _brief.maxdict = 20
_brief.maxstring = _brief.maxother = _brief.maxlong = 200


def brief(value: Any) -> str:
    """A value as Python writes it, cut short where it is long or deeply nested."""
    return shown(_brief.repr(value))


def _escape(found: re.Match[str]) -> str:
    letter = found[0]
    code = ord(letter)
    return _SHORT.get(letter) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
