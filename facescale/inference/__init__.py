"""A trained model in use: loading, embedding, other runtimes."""
