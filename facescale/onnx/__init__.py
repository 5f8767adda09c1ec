"""ONNX files: writing a network, running a file, comparing the two."""
