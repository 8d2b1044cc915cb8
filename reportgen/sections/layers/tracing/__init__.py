"""Passes of a model, recorded: which module ran, which operators, and what they cost."""
