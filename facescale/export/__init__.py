"""Models for use elsewhere, each compared with the network it was made from."""
