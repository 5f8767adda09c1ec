"""Measurements; a package, because some versions of pyarrow install one of the same name."""
