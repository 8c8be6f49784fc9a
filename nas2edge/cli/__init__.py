"""The command line. One module a command; the only place that prints, exits, or wires the parts together."""

from nas2edge.cli._main import main as main

__all__ = ["main"]
