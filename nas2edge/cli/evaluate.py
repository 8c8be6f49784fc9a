"""nas2edge evaluate: accuracies of sub-networks of a supernet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from nas2edge.cli._common import echo_json, json_option, result_console, threads_option, use_threads
from nas2edge.costs import count
from nas2edge.optional import require
from nas2edge.plan import plan
from nas2edge.space import SearchSpace, SubnetConfig
from nas2edge.subnet_file import find_subnet
from nas2edge.units import format_count


@click.command("evaluate")
@click.option("--supernet", default="builtin:tiny", show_default=True, help="A run's folder, or an embedded supernet.")
@click.option(
    "--subnet",
    "subnets",
    multiple=True,
    help="smallest, largest, alphanet-a0 (to a6) or a subnet.json; repeatable.  [default: both ends]",
)
@click.option("--random", "random", default=0, show_default=True, help="Sub-networks to draw besides.")
@click.option("--seed", default=0, show_default=True, help="Of the sub-networks drawn.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Images of your own.  [default: those beside the weights]"
)
@click.option("--split", default="validation", show_default=True, help="The folder of --data to measure on.")
@threads_option
@json_option
def command(
    supernet: str,
    subnets: tuple[str, ...],
    random: int,
    seed: int,
    data: Path | None,
    split: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure accuracies of sub-networks: cut out, recalibrated, run on labelled images.

    Example: nas2edge evaluate --random 10 --data cifar10.zip --split test
    """
    require("torch", "PIL", extra="export", purpose="measuring accuracy")
    from nas2edge.supernet.checkpoint import load_supernet
    from nas2edge.supernet.evaluate import make_evaluator

    loaded = load_supernet(supernet)
    use_threads(threads, loaded.info.space)
    space = loaded.info.space
    named = {name: find_subnet(name, space).subnet for name in subnets or ("smallest", "largest")}
    for i, subnet in enumerate(space.decode(space.sample(random, np.random.default_rng(seed)))):
        named[f"random {i}"] = subnet
    evaluator = make_evaluator(loaded, data=data, split=split)
    rows = [_row(name, subnet, evaluator([subnet])[0], space) for name, subnet in named.items()]
    if as_json:
        echo_json(
            {
                "format": "nas2edge.evaluation",
                "version": 1,
                "supernet": {"source": supernet, "sha256": loaded.info.sha256},
                "images": {"source": str(data or "beside the weights"), "split": split, "count": evaluator.tested},
                "subnets": rows,
            }
        )
        return
    from rich.table import Table

    table = Table(title=f"top-1 on {evaluator.tested} images ({split})", title_justify="left")
    for heading in ("sub-network", "top-1 %", "MACs", "parameters"):
        table.add_column(heading, justify="left" if heading == "sub-network" else "right")
    for row in rows:
        table.add_row(row["name"], f"{row['accuracy']:.2f}", format_count(row["macs"]), format_count(row["params"]))
    result_console(as_json=False).print(table)


def _row(name: str, subnet: SubnetConfig, accuracy: float, space: SearchSpace) -> dict[str, Any]:
    costs = count(plan(space, subnet))
    return {
        "name": name,
        "accuracy": accuracy,
        "macs": costs.macs,
        "params": costs.params,
        "subnet": subnet.to_dict(),
    }
