"""Measurements of whole stages on the user's machine, each beside a plain PyTorch way in the same run."""
