"""What is in the file: read from it alone, without PyTorch."""
