"""Which images make up a batch, as a pure function of seed, epoch and index."""
