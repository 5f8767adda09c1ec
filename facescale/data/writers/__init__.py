"""Data sets written in the formats that can be read."""
