"""Encoded images to batches: decoding, prefetching, augmentation."""
