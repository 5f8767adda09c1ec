"""Exported models, each compared with the network it was made from."""
