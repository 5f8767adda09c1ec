"""Drawn faces of any number of people."""
