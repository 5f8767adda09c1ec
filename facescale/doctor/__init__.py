"""Examine a machine and a config before a training: what is well, and what to change."""

from facescale.doctor.examine import examine
from facescale.doctor.finding import Finding

__all__ = ["Finding", "examine"]
