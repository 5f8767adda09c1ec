"""Configs that come with the package."""
