"""Latency and profile on this machine."""
