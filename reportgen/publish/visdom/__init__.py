"""Publishes a report to a visdom server."""
