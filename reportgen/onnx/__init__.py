"""ONNX files: exported from a model, read, and run."""
