"""Readers of visdom: environments saved by a server, and logs of a client."""
