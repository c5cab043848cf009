"""The version: a file of its own, for every room may record it."""

__version__ = "0.1.0"
