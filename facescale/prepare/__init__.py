"""From photos and foreign sets to data that is ready for training."""

from facescale.prepare.align import align

__all__ = ["align"]
