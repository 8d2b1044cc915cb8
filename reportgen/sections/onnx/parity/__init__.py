"""Parity of onnxruntime with PyTorch, and the search for the first difference."""
