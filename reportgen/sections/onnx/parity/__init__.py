"""onnxruntime against PyTorch: do they agree, where do they part, and does it prove anything."""
