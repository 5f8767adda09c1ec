"""Class centres: rows on device, host or disk, their optimizer state, and how both are saved."""

from facescale.centres.store import CentreStore, Work

__all__ = ["CentreStore", "Work"]
