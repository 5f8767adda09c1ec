"""Weights of other projects, and a check of their colour order."""
