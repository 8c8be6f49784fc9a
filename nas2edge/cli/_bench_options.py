"""Options that bench and check share."""

from __future__ import annotations

import click

from nas2edge.bench.quantities import parse_shape
from nas2edge.cli._common import Quantity
from nas2edge.runtimes.registry import RUNTIMES
from nas2edge.units import parse_duration_s

runtime_option = click.option("--runtime", help=f"{', '.join(RUNTIMES)}.  [default: the first that loads the file]")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads that a run may use."
)
shape_option = click.option(
    "--input-shape", "shape", type=Quantity("NxCxHxW", parse_shape), help="Of the input, where the file leaves it open."
)
time_limit_option = click.option(
    "--time-limit",
    type=Quantity("DURATION", parse_duration_s),
    default="60s",
    show_default=True,
    help="Kill a process that does not answer for so long.",
)
