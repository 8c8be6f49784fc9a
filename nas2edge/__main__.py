"""Runs the command line as `python -m nas2edge`, which torchrun needs."""

from nas2edge.cli import main

main(prog_name="nas2edge")
