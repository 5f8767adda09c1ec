"""Verification and identification protocols: which images are compared, and how they are read."""
