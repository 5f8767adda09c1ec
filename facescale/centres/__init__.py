"""Class centres: rows on device, host or disk, their optimizer state, and how both are saved."""

from facescale.centres.row_block import RowBlock
from facescale.centres.store import CentreStore

__all__ = ["CentreStore", "RowBlock"]
