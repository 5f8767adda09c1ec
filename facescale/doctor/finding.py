"""One line of an examination."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do about it.

    Attributes:
        what: was looked at.
        found: how it is.
        fix: what to do; empty if all is well.
    """

    what: str
    found: str
    fix: str = ""

    @property
    def line(self) -> str:
        """As text."""
        text = f"{self.what}: {self.found}"
        return f"fix   {text}; {self.fix}" if self.fix else f"ok    {text}"
