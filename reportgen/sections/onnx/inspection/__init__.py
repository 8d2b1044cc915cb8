"""Inspection of the file alone, without PyTorch."""
