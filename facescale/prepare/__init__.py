"""From photos and foreign sets to data that is ready for training."""
