"""Data sets by format."""
