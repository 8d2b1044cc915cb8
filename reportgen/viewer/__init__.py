"""The graph viewer of a page: nested clusters, a layout for each, and the data of its scripts."""
