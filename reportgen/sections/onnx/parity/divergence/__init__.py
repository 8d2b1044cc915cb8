"""Where a file and PyTorch begin to differ: the module, the node, the suspects."""
