"""nas2edge tables validate: predicted against measured latency of networks that a table has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas2edge.cli._common import Quantity, echo_json, json_option, result_console
from nas2edge.cli._progress import pass_progress
from nas2edge.errors import InputError
from nas2edge.units import format_latency, parse_duration_s

if TYPE_CHECKING:
    from rich.console import Console

    from nas2edge.latency.table import LatencyTable
    from nas2edge.latency.validation import ValidationReport

FORMAT, VERSION = "nas2edge.table_validation", 1

_NOTABLE = 0.05  # change of the memory's or the reference's speed


@click.command("validate")
@click.argument("table")
@click.option("--space", "spaces", multiple=True, default=("tiny",), show_default=True,
              help="Space that the networks are drawn from; may be given several times.")  # fmt: skip
@click.option("--nets", type=click.IntRange(min=5), default=100, show_default=True,
              help="Networks to measure of each space.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=1000, show_default=True,
              help="Draws networks, weights, order; profile draws others.")  # fmt: skip
@click.option("--time-per-network", type=Quantity("DURATION", parse_duration_s), default="500ms", show_default=True,
              help="Timed runs of a network, over two sessions.")  # fmt: skip
@click.option(
    "--tables", type=click.Path(path_type=Path, file_okay=False), help="Folder of latency tables of your own."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Report of one space; a plot goes beside it.  [default: TABLE-SPACE.validation.json]")  # fmt: skip
@click.option("--calibrate", is_flag=True,
              help="Fit overhead, slope and so on to the networks; report on each by a fit to others. Name all spaces "
                   "that the table is for.")  # fmt: skip
@click.option("--update", is_flag=True, help="State the result in the table, which must be a .json file.")
@click.option("--restart", is_flag=True, help="Forget an interrupted validation instead of going on from it.")
@click.option("--keep-visits", is_flag=True,
              help="Keep the .partial file of all visits: the same command makes the report of them anew.")  # fmt: skip
@json_option
def validate(
    table: str,
    spaces: tuple[str, ...],
    nets: int,
    seed: int,
    time_per_network: float,
    tables: Path | None,
    out: Path | None,
    calibrate: bool,
    update: bool,
    restart: bool,
    keep_visits: bool,
    as_json: bool,
) -> None:
    """Measure networks that TABLE has never seen on this machine, and tell how far it is off.

    TABLE is a name or a .json file. 40 % of the networks are uniform over MACs, 40 % near the front, the rest extremes
    and random ones. An interrupted validation goes on where it stopped when the same command runs again.

    Examples:

    \b
      nas2edge tables validate cpu --space tiny
      taskset -c 0 nas2edge tables validate latency_tables/my-board.json --space attentivenas --update
      nas2edge tables validate my-board.json --space tiny --space attentivenas --nets 170 --calibrate --update
    """
    import numpy as np

    from nas2edge.cli._int8 import int8_graph
    from nas2edge.files import write_json
    from nas2edge.latency.partial import partial_path
    from nas2edge.latency.protocol import Options
    from nas2edge.latency.registry import load_table
    from nas2edge.latency.target import check_target, make_prepare, target_of
    from nas2edge.latency.validation import ValidationRequest, validate_table
    from nas2edge.spaces import load_space

    loaded, searched = load_table(table, tables=tables), [load_space(name) for name in dict.fromkeys(spaces)]
    if update and not table.endswith(".json"):
        raise InputError(f"--update writes to the table, so TABLE must be its .json file; {table!r} is a name")
    if out is not None and len(searched) > 1:
        raise InputError(f"--out {out} names one report, and --space asks for {len(searched)}; leave --out away")
    paths = [out or Path(f"{loaded.device.name}-{space.name}.validation.json") for space in searched]
    if paths[0].suffix != ".json":
        raise InputError(f"--out {out} does not end in .json")
    target = target_of(loaded.device)
    check_target(target)
    partial = partial_path(paths[0])
    if restart:
        partial.unlink(missing_ok=True)
    rng = np.random.default_rng(seed)
    # Networks have twice the time of a row.
    options = Options(time_per_row_s=time_per_network / 2)
    request = ValidationRequest(nets=nets, seed=seed, options=options, partial=partial, calibrate=calibrate)
    prepare = make_prepare(target, rng=rng, quantise=int8_graph)
    with pass_progress() as progress:
        loaded, reports = validate_table(loaded, searched, request, prepare=prepare, rng=rng, progress=progress)
    console = result_console(as_json=as_json)
    documents = []
    for path, report in zip(paths, reports, strict=True):
        document = {"format": FORMAT, "version": VERSION, "device": loaded.device.to_dict(), **report.to_dict()}
        documents.append(document)
        write_json(path, document)
        _render(console, report, loaded)
        console.print(f"{path}: the report", markup=False)
        _plot(console, report, path.with_suffix(".png"))
    if not keep_visits:
        partial.unlink(missing_ok=True)
    if as_json:
        several = {"format": f"{FORMAT}s", "version": VERSION, "reports": documents}
        echo_json(documents[0] if len(documents) == 1 else several)
    if update:
        _update(loaded, reports, Path(table), calibrated=calibrate)
        console.print(f"{table}: states the result", markup=False)


def _render(console: Console, report: ValidationReport, table: LatencyTable) -> None:
    from nas2edge.latency.machine import read_machine

    summary = report.summary
    if table.device.chip != (chip := read_machine().chip):
        console.print(f"warning: the table is of {table.device.chip}, this machine is {chip}", markup=False)
    counted = [net for net in report.nets if net.quiet]
    span = [min(net.measured_ms for net in counted), max(net.measured_ms for net in counted)]
    console.print(
        f"{report.table}, {summary.nets} networks of {report.space} of {format_latency(span[0])} to "
        f"{format_latency(span[1])}: {summary.mape:.2f} % mean error, bias {summary.bias:+.2f} %, "
        f"{summary.within_5:.0%} within 5 %, {summary.within_10:.0%} within 10 %, Kendall tau "
        f"{summary.kendall_tau:.3f}, {report.within_one_sigma:.0%} within the stated sigma",
        markup=False,
    )
    for what, groups in (("", report.by_role), ("resolution ", report.by_resolution)):
        for name, found in groups.items():
            console.print(
                f"  {what}{name}: {found['mape']:.2f} % mean error, bias {found['bias']:+.2f} % "
                f"({found['nets']} networks)",
                markup=False,
            )
    now, slower = report.summary_now, report.memory_slower
    if now and now != summary and slower is not None and abs(slower) > _NOTABLE:
        console.print(
            f"  a copy from memory to memory took {1 + slower:.2f} times what it took when the table was measured; "
            f"told so, the table is {now.mape:.2f} % off, bias {now.bias:+.2f} %; --calibrate fits it to that",
            markup=False,
        )
    slower = report.reference_slower
    if slower is not None and abs(slower) > _NOTABLE:
        console.print(
            f"  the reference block took {1 + slower:.2f} times what it took when the table was measured: another "
            "clock, or threads that wait longer for each other",
            markup=False,
        )
    if report.disturbed:
        console.print(
            f"  {report.disturbed} networks do not count: the machine was busy. Run again on a quiet one", markup=False
        )


def _plot(console: Console, report: ValidationReport, path: Path) -> None:
    from nas2edge.errors import MissingDependencyError
    from nas2edge.files import atomic_path
    from nas2edge.report.scatter import Point, scatter_png

    points = [
        Point(measured_ms=net.measured_ms, predicted_ms=net.predicted_ms, sigma_ms=net.sigma_ms, group=net.role)
        for net in report.nets
        if net.quiet
    ]
    summary = report.summary
    caption = (
        f"{summary.mape:.2f} % mean error, bias {summary.bias:+.2f} %, {summary.within_10:.0%} within 10 %, "
        f"tau {summary.kendall_tau:.3f}"
    )
    try:
        png = scatter_png(points, title=f"{report.table}, {report.space}", caption=caption)
    except MissingDependencyError as err:
        console.print(f"no plot: {err}", markup=False)
        return
    with atomic_path(path) as part:
        part.write_bytes(png)
    console.print(f"{path}: predicted against measured", markup=False)


def _update(table: LatencyTable, reports: Sequence[ValidationReport], path: Path, *, calibrated: bool) -> None:
    """Replaces the entries of the spaces, and widens the table's error if these networks say so.

    A new calibration voids what was found with the old one.
    """
    from nas2edge.latency.table_file import write_table

    spaces = {report.space for report in reports}
    others = () if calibrated else tuple(entry for entry in table.validation if entry.space not in spaces)
    nets = [net for report in reports for net in report.nets if net.quiet]
    rms = (sum((net.predicted_ms / net.measured_ms - 1.0) ** 2 for net in nets) / len(nets)) ** 0.5
    protocol = dict(table.protocol)
    if calibrated:
        protocol["calibrated"] = f"anew by nas2edge tables validate, to {table.calibration.nets} networks"
    write_table(
        path,
        replace(
            table,
            validation=(*others, *(report.summary for report in reports)),
            rel_sigma=max(rms, table.rel_sigma) if others else rms,
            protocol=protocol,
        ),
    )
