"""nas2edge search: the best sub-network for a device and its limits, and the whole front beside it."""

from __future__ import annotations

import time
from pathlib import Path

import click

from nas2edge.cli._common import Quantity, echo_json, json_option, processes_option, result_console, threads_option
from nas2edge.cli._search_accuracy import AUTO, DEFAULT_SUPERNET, SOURCES, Accuracy, find_accuracy
from nas2edge.cli._search_limits import OBJECTIVES, Limits, parse_latencies, read_limits
from nas2edge.cli._search_output import Outputs, check_outputs, documents, one_for_all_to_dict, render, write_all
from nas2edge.errors import InputError
from nas2edge.search import SearchResult, search
from nas2edge.search.pareto_file import AccuracySource, Origin, TableSource
from nas2edge.search.restrict import forbid_operations, parse_fixed, parse_forbidden, restrict
from nas2edge.search.run import NAMES
from nas2edge.units import parse_bytes, parse_count, parse_energy_mj

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
    "--energy",
    type=Quantity("ENERGY", parse_energy_mj),
    help="Limit of the energy of a run on every device, such as 5mJ; their tables must state energies.",
)
@click.option(
    "--objective",
    "traded",
    multiple=True,
    type=click.Choice(list(OBJECTIVES)),
    help="What to trade accuracy off against; repeatable.  [default: latency on every device, else MACs]",
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
    "--forbid",
    "forbids",
    multiple=True,
    metavar="OP|GENE=VALUE",
    help="Do without a choice, or refuse an operation (se, swish, relu, hsigmoid): kernel_size=5; repeatable.",
)
@click.option("--supernet", help=f"Weights to search: a run's folder or file.  [default: {DEFAULT_SUPERNET}]")
@click.option("--space", "space_name", help="Search a space without weights: attentivenas.")
@click.option("--tables", type=_PATH, help="Folder of latency tables of your own.")
@click.option("--force-table", is_flag=True, help="Use latency tables that fail lint (see: nas2edge tables lint).")
@click.option(
    "--accuracy",
    "accuracy_source",
    type=click.Choice(SOURCES),
    default=AUTO,
    show_default=True,
    help="What gives accuracies: a predictor beside the weights, or the supernet itself; auto: a predictor, if any.",
)
@click.option(
    "--reevaluate",
    type=click.IntRange(min=0),
    metavar="N",
    help="Evaluate the N best that a predictor finds on the supernet, and fit it anew, until they stand; 0: none.  "
    "[default: the chosen ones]",
)
@click.option("--data", type=_PATH, help="Validation images of your own for --supernet.")
@click.option(
    "--cache", type=_PATH, help="Folder for measured accuracies, from which a rerun goes on.  [default: --out's]"
)
@processes_option
@threads_option
@click.option("--resume", type=_PATH, help="File for the state of a long search; an interrupted one goes on from it.")
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
@click.option("--report", type=_PATH, help="A page of the search that opens offline, such as report.html.")
@json_option  # fmt: skip
def command(
    devices: tuple[str, ...],
    latency: tuple[float, ...] | None,
    macs: int | None,
    params: int | None,
    size: int | None,
    memory: int | None,
    energy: float | None,
    traded: tuple[str, ...],
    confidence: float | None,
    one_for_all: bool,
    fixes: tuple[str, ...],
    forbids: tuple[str, ...],
    supernet: str | None,
    space_name: str | None,
    tables: Path | None,
    force_table: bool,
    accuracy_source: str,
    reevaluate: int | None,
    data: Path | None,
    cache: Path | None,
    processes: int,
    threads: int | None,
    resume: Path | None,
    algorithm: str | None,
    evaluations: int | None,
    population: int | None,
    seed: int,
    out: Path,
    front: Path,
    report: Path | None,
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
        energy=energy,
        traded=traded,
        confidence=confidence,
        one_for_all=one_for_all,
        folder=tables,
        force_table=force_table,
    )
    for warning in limits.warnings:
        result_console(as_json=True).print(f"warning: {warning}", markup=False)
    outputs = check_outputs(out, front, report, latencies=limits.latencies)
    if resume and reevaluate:
        raise InputError("--resume keeps one search and --reevaluate makes several, of seconds each; leave one out")
    fixed, (operations, forbidden) = parse_fixed(fixes), parse_forbidden(forbids)
    source = find_accuracy(
        supernet=supernet,
        space_name=space_name,
        data=data,
        processes=processes,
        threads=threads,
        cache=cache or out.parent,
        source=accuracy_source,
        reevaluate=reevaluate,
        keeps_state=resume is not None,
    )
    forbid_operations(restrict(source.space, fixed, forbidden).inner, operations)
    result, stated = source.find(
        lambda accuracy: search(
            source.space,
            accuracy=accuracy,
            latency=limits.tables,
            constraints=limits.constraints,
            alternatives=limits.alternatives,
            objectives=limits.objectives,
            fixed=fixed,
            forbidden=forbidden,
            algorithm=algorithm,
            evaluations=evaluations or source.evaluations,
            population=population,
            seed=seed,
            guided=source.guided,
            resume=resume,
        ),
        evaluations=evaluations,
    )
    _report(result, stated, source, limits, outputs, seconds=time.perf_counter() - started, as_json=as_json)


def _report(
    result: SearchResult,
    stated: AccuracySource,
    source: Accuracy,
    limits: Limits,
    outputs: Outputs,
    *,
    seconds: float,
    as_json: bool,
) -> None:
    """Writes the files, then says what was found."""
    origin = Origin(
        space=source.space,
        accuracy=stated,
        tables={name: TableSource(kind=table.kind, digest=table.digest) for name, table in limits.tables.items()},
        supernet=source.supernet,
    )
    subnets, pareto = documents(result, origin, n=len(outputs.subnets))
    write_all(outputs, subnets, pareto, result=result, tables=limits.tables)
    if as_json:
        value = {
            "format": "nas2edge.search",
            "version": 1,
            "seconds": round(seconds, 3),
            "files": outputs.to_dict(),
            "subnet": subnets[0],
            "subnets": subnets,
            "one_for_all": one_for_all_to_dict(result) if limits.one_for_all else None,
            "pareto": pareto,
        }
        echo_json(value)
    render(
        result_console(as_json=as_json), result, origin, seconds=seconds, outputs=outputs,
        one_for_all=limits.one_for_all,
    )  # fmt: skip
