"""How work is run: the worker fleet behind Rowmill."""

__version__ = "0.1.0"
