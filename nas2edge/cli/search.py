"""nas2edge search: the best sub-network for a device and its limits, and the whole front beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from nas2edge.cli._common import Quantity, echo_json, json_option, result_console, threads_option
from nas2edge.cli._search_accuracy import DEFAULT_SUPERNET, Accuracy, find_accuracy, show_progress
from nas2edge.cli._search_limits import Limits, parse_latencies, read_limits
from nas2edge.cli._search_output import check_outputs, documents, one_for_all_to_dict, render, write_all
from nas2edge.search import SearchResult, search
from nas2edge.search.pareto_file import Origin, TableSource
from nas2edge.search.restrict import forbid_se, parse_fixed, restrict
from nas2edge.search.run import NAMES
from nas2edge.units import parse_bytes, parse_count

_PATH = click.Path(path_type=Path)


@click.command("search")
@click.option("--device", "devices", multiple=True, metavar="NAME[:LIMIT]", help="Latency table; repeatable: pi:50ms.")
@click.option(
    "--latency",
    type=Quantity("LATENCY[,...]", parse_latencies),
    help="Limit of every device without its own; several, such as 20ms,15ms: a sub-network for each.",
)
@click.option("--macs", type=Quantity("COUNT", parse_count), help="Limit of multiply-accumulates, such as 300M.")
@click.option("--params", type=Quantity("COUNT", parse_count), help="Limit of parameters, such as 5M.")
@click.option("--size", type=Quantity("BYTES", parse_bytes), help="Limit of the model's size in fp32, such as 20MB.")
@click.option(
    "--memory",
    type=Quantity("BYTES", parse_bytes),
    help="Limit of the activations held at once, in fp32 and one image, such as 4MB.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, max_open=True),
    help="Probability with which latencies keep their limits.  [default: the prediction itself does]",
)
@click.option(
    "--one-for-all-devices",
    "one_for_all",
    is_flag=True,
    help="Tell what one sub-network for all devices costs against one for each.",
)
@click.option(
    "--fix",
    "fixes",
    multiple=True,
    metavar="GENE=VALUE",
    help="Fix a choice: resolution=224, depth.2=3, kernel_size=3; repeatable.",
)
@click.option(
    "--forbid", type=click.Choice(["se"]), help="Refuse squeeze-and-excitation, which some accelerators lack."
)
@click.option("--supernet", help=f"Weights to search: a run's folder or file.  [default: {DEFAULT_SUPERNET}]")
@click.option("--space", "space_name", help="Search a space without weights: attentivenas.")
@click.option("--tables", type=_PATH, help="Folder of latency tables of your own.")
@click.option("--force-table", is_flag=True, help="Use latency tables that fail lint (see: nas2edge tables lint).")
@click.option("--data", type=_PATH, help="Validation images of your own for --supernet.")
@click.option(
    "--cache", type=_PATH, help="Folder for measured accuracies, from which a rerun goes on.  [default: --out's]"
)
@threads_option
@click.option(
    "--resume", type=_PATH, help="File for the state of a long nsga2 search; an interrupted one goes on from it."
)
@click.option(
    "--algorithm", type=click.Choice(NAMES), help="How to search.  [default: nsga2; with weights, a model guides]"
)
@click.option("--evaluations", type=click.IntRange(min=1), help="Accuracies to evaluate.  [default: by their cost]")
@click.option("--population", type=click.IntRange(min=2), help="Candidates in a round.  [default: by evaluations]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Equal seeds, equal results.")
@click.option("--out", type=_PATH, default=Path("subnet.json"), show_default=True, help="The chosen sub-network.")
@click.option(
    "--front", type=_PATH, default=Path("pareto.json"), show_default=True, help="All sub-networks worth a choice."
)
@json_option  # fmt: skip
def command(
    devices: tuple[str, ...],
    latency: tuple[float, ...] | None,
    macs: int | None,
    params: int | None,
    size: int | None,
    memory: int | None,
    confidence: float | None,
    one_for_all: bool,
    fixes: tuple[str, ...],
    forbid: str | None,
    supernet: str | None,
    space_name: str | None,
    tables: Path | None,
    force_table: bool,
    data: Path | None,
    cache: Path | None,
    threads: int | None,
    resume: Path | None,
    algorithm: str | None,
    evaluations: int | None,
    population: int | None,
    seed: int,
    out: Path,
    front: Path,
    as_json: bool,
) -> None:
    """Find the most accurate sub-network that keeps the limits, and the whole trade-off beside it.

    Examples:

    \b
      nas2edge search --device jetson --latency 20ms
      nas2edge search --device jetson --latency 20ms,15ms,10ms
      nas2edge search --space attentivenas --device pixel:30ms --device raspberry-pi:200ms
    """
    started = time.perf_counter()
    limits = read_limits(
        devices=devices,
        latency=latency or (),
        counts={"macs": macs, "params": params, "size_bytes": size, "memory_bytes": memory},
        confidence=confidence,
        one_for_all=one_for_all,
        folder=tables,
        force_table=force_table,
    )
    for warning in limits.warnings:
        result_console(as_json=True).print(f"warning: {warning}", markup=False)
    paths = check_outputs(out, front, latencies=limits.latencies)
    fixed = parse_fixed(fixes)
    source = find_accuracy(
        supernet=supernet, space_name=space_name, data=data, threads=threads, cache=cache or out.parent
    )
    if forbid:
        forbid_se(restrict(source.space, fixed).inner)
    with show_progress(source, evaluations or source.evaluations) as advance:
        result = search(
            source.space,
            accuracy=source.metric(advance),
            latency=limits.tables,
            constraints=limits.constraints,
            alternatives=limits.alternatives,
            fixed=fixed,
            algorithm=algorithm,
            evaluations=evaluations or source.evaluations,
            population=population,
            seed=seed,
            guided=source.guided,
            resume=resume,
        )
    _report(result, source, limits, paths, front, seconds=time.perf_counter() - started, as_json=as_json)


def _report(
    result: SearchResult,
    source: Accuracy,
    limits: Limits,
    paths: Sequence[Path],
    front: Path,
    *,
    seconds: float,
    as_json: bool,
) -> None:
    """Writes the files, then says what was found."""
    origin = Origin(
        space=source.space,
        accuracy=source.stated(result.best.accuracy),
        tables={name: TableSource(kind=table.kind, digest=table.digest) for name, table in limits.tables.items()},
        supernet=source.supernet,
    )
    subnets, pareto = documents(result, origin, n=len(paths))
    write_all({**dict(zip(paths, subnets, strict=True)), front: pareto})
    if as_json:
        value = {
            "format": "nas2edge.search",
            "version": 1,
            "seconds": round(seconds, 3),
            "files": {"subnet": str(paths[0]), "pareto": str(front), "subnets": [str(path) for path in paths]},
            "subnet": subnets[0],
            "subnets": subnets,
            "one_for_all": one_for_all_to_dict(result) if limits.one_for_all else None,
            "pareto": pareto,
        }
        echo_json(value)
    render(
        result_console(as_json=as_json), result, origin, seconds=seconds, paths=paths, front=front,
        one_for_all=limits.one_for_all,
    )  # fmt: skip
