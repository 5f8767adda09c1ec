"""Weights of other projects, and checks of the images a model is fed with."""
