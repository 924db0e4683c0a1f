"""The HTTP service: HTTP in, HTTP out. Never imports torch."""

__version__ = "0.1.0"
