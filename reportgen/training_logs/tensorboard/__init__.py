"""Reader of TensorBoard event files."""
