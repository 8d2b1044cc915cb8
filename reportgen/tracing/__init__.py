"""Forward passes, recorded: which module ran, and which operators."""
