"""Graphs as drawings: simplified, laid out by graphviz, as SVG for a page."""
