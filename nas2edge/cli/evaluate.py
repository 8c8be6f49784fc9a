"""nas2edge evaluate: accuracies of sub-networks of a supernet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from nas2edge.cli._common import (
    echo_json,
    json_option,
    open_evaluator,
    processes_option,
    result_console,
    threads_option,
)
from nas2edge.costs import count
from nas2edge.errors import InputError
from nas2edge.optional import require
from nas2edge.plan import plan
from nas2edge.space import SearchSpace, SubnetConfig
from nas2edge.subnet_file import ENDS, find_subnet, read_subnets
from nas2edge.units import format_count


@click.command("evaluate")
@click.option("--supernet", default="builtin:tiny", show_default=True, help="A run's folder, or an embedded supernet.")
@click.option(
    "--subnet",
    "subnets",
    multiple=True,
    help="smallest, largest, alphanet-a0 (to a6) or a subnet.json; repeatable.  [default: both ends]",
)
@click.option(
    "--subnets",
    "listed",
    type=click.Path(path_type=Path),
    help="Many: a pareto.json, or a .jsonl file with a subnet on each line.",
)
@click.option("--random", "random", default=0, show_default=True, help="Sub-networks to draw besides.")
@click.option("--seed", default=0, show_default=True, help="Of the sub-networks drawn.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Images of your own.  [default: those beside the weights]"
)
@click.option("--split", default="validation", show_default=True, help="The folder of --data to measure on.")
@processes_option
@threads_option
@json_option
def command(
    supernet: str,
    subnets: tuple[str, ...],
    listed: Path | None,
    random: int,
    seed: int,
    data: Path | None,
    split: str,
    processes: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure accuracies of sub-networks: cut out, recalibrated, run on labelled images.

    Images are decoded once a process, however many sub-networks there are. Those are shared out to --processes, or to
    what torchrun started.

    Example: nas2edge evaluate --random 10 --data cifar10.zip --split test
    """
    require("torch", "PIL", extra="export", purpose="measuring accuracy")
    from nas2edge.supernet.checkpoint import load_supernet
    from nas2edge.train.processes import gather, join, leave

    loaded = load_supernet(supernet)
    space = loaded.info.space
    named = {name: find_subnet(name, space).subnet for name in subnets or (() if listed else ENDS)}
    if listed:
        named |= {subnet.id: subnet for subnet in read_subnets(listed, space)}
    for i, subnet in enumerate(space.decode(space.sample(random, np.random.default_rng(seed)))):
        named[f"random {i}"] = subnet
    process = join()
    if processes > 1 and process.world > 1:
        raise InputError(f"--processes {processes} under torchrun, which started {process.world}; give one of the two")
    evaluator = open_evaluator(loaded, processes=processes, threads=threads, data=data, split=split)
    mine = list(named.items())[process.rank :: process.world]
    started = time.monotonic()
    accuracies = evaluator([subnet for _, subnet in mine])
    rows = gather([_row(*one, accuracy, space) for one, accuracy in zip(mine, accuracies, strict=True)], process)
    seconds = time.monotonic() - started
    leave()
    if not process.first:
        return
    if as_json:
        echo_json(
            {
                "format": "nas2edge.evaluation",
                "version": 1,
                "supernet": {"source": supernet, "sha256": loaded.info.sha256},
                "images": {"source": str(data or "beside the weights"), "split": split, "count": evaluator.tested},
                "subnets": rows,
                "seconds": seconds,
                "processes": max(processes, process.world),
            }
        )
        return
    from rich.table import Table

    table = Table(title=f"top-1 on {evaluator.tested} images ({split})", title_justify="left")
    for heading in ("sub-network", "top-1 %", "MACs", "parameters"):
        table.add_column(heading, justify="left" if heading == "sub-network" else "right")
    for row in rows:
        table.add_row(row["name"], f"{row['accuracy']:.2f}", format_count(row["macs"]), format_count(row["params"]))
    console = result_console(as_json=False)
    console.print(table)
    console.print(f"{len(rows)} in {seconds:.1f} s: {60 * len(rows) / seconds:.0f} a minute")


def _row(name: str, subnet: SubnetConfig, accuracy: float, space: SearchSpace) -> dict[str, Any]:
    costs = count(plan(space, subnet))
    return {
        "name": name,
        "accuracy": accuracy,
        "macs": costs.macs,
        "params": costs.params,
        "subnet": subnet.to_dict(),
    }
