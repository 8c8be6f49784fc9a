"""Options and output that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nas2edge.costs import count
from nas2edge.errors import UnitError
from nas2edge.plan import plan
from nas2edge.space import SearchSpace

if TYPE_CHECKING:
    from rich.console import Console

    from nas2edge.supernet.checkpoint import LoadedSupernet
    from nas2edge.supernet.evaluate import SupernetEvaluator
    from nas2edge.supernet.pool import EvaluatorPool

T = TypeVar("T")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr."
)


SMALL_MACS = 50_000_000
"""Smaller networks gain little from threads, and lose much where another process has a core."""

threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads.  [default: one for small networks, else all cores]"
)


processes_option = click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that evaluate sub-networks; each needs the memory of one.",
)


def open_evaluator(
    supernet: LoadedSupernet, *, processes: int, threads: int | None, data: Path | None, split: str = "validation"
) -> SupernetEvaluator | EvaluatorPool:
    """Returns what measures the accuracy of sub-networks: this process, or several others."""
    info = supernet.info
    if processes > 1:
        from nas2edge.supernet.pool import EvaluatorPool

        return EvaluatorPool(info.source, processes=processes, threads=threads, data=data, split=split)
    from nas2edge.supernet.evaluate import make_evaluator

    use_threads(threads, info.space)
    return make_evaluator(supernet, data=data, split=split)


def use_threads(threads: int | None, space: SearchSpace) -> None:
    """Sets how many threads torch computes with: as asked, or by the size of the space's largest sub-network."""
    import torch

    small = count(plan(space, space.largest())).macs < SMALL_MACS
    if threads or small:
        torch.set_num_threads(threads or 1)


class Quantity(click.ParamType[T]):
    """An option's value with a unit, such as 20ms.

    Args:
        name: What --help shows.
        parse: Turns the text into a number, or raises UnitError.
    """

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # a default, already converted
        try:
            return self._parse(value)
        except UnitError as err:
            raise UnitError(f"{param.opts[-1]}: {err}" if param else str(err)) from err


def result_console(*, as_json: bool) -> Console:
    """Returns the console for what people read: stdout, or stderr where stdout belongs to --json."""
    from rich.console import Console

    return Console(stderr=as_json, highlight=False, soft_wrap=True)


def echo_json(value: Mapping[str, Any]) -> None:
    """Prints the one JSON object of --json."""
    click.echo(json.dumps(value, indent=2))
