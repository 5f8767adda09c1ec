"""Find what is wrong in the labels of a data set, with a model; it proposes, nothing is deleted."""
