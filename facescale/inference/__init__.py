"""Using a trained model: loading, embedding, other runtimes."""
