"""reportgen from Python: the analysis of a model object, and one function for each question."""
