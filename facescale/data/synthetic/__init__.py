"""Synthetic faces of any number of identities."""
