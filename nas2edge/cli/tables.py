"""nas2edge tables: lint and validate latency tables, import others' measurements, transfer a table to a new device."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas2edge.cli._common import Quantity, echo_json, json_option, result_console
from nas2edge.cli._tables_validate import validate
from nas2edge.errors import InputError
from nas2edge.units import parse_latency_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from nas2edge.latency.lint import LintReport
    from nas2edge.latency.table import LatencyTable
    from nas2edge.plan import LayerSpec

_FORMATS = ("ofa-yaml", "proxyless-yaml", "nn-meter", "ncnn", "csv", "trtexec-profile", "tflite-csv")
_SHOWN, _SHOWN_OF_A_RULE = 10, 3


@click.group("tables")
def command() -> None:
    """Check, validate, import and transfer latency tables.

    \b
    Examples:
      nas2edge tables lint latency_tables/my-board.json
      nas2edge tables validate latency_tables/my-board.json --space tiny
      nas2edge tables import 224_lookup_table.yaml --format ofa-yaml --device note-10 ...
      nas2edge tables transfer pixel-6 measured.json --space attentivenas --out latency_tables/my-phone.json
    """


command.add_command(validate)


@command.command("lint")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def lint(file: Path, as_json: bool) -> None:
    """Look for what betrays a wrong table.

    Exit code 2 if there are errors; warnings alone exit with 0. Rules that cannot be checked are named.
    """
    from nas2edge.latency.lint import lint_file

    report = lint_file(file)
    if as_json:
        echo_json(
            {
                "format": "nas2edge.lint",
                "version": 1,
                "file": str(file),
                "device": report.device,
                "findings": [asdict(finding) for finding in report.findings],
                "skipped": dict(report.skipped),
            }
        )
    console = result_console(as_json=as_json)
    _render_findings(console, report)
    for rule, reason in report.skipped.items():
        console.print(f"not checked {rule}: {reason}", markup=False)
    console.print(f"{file}: {len(report.errors)} errors, {len(report.warnings)} warnings", markup=False)
    if report.errors:
        raise click.exceptions.Exit(2)


def _render_findings(console: Console, report: LintReport) -> None:
    for rule, same in groupby(report.findings, key=lambda finding: finding.rule):
        found = list(same)
        for finding in found[:_SHOWN_OF_A_RULE]:
            row = f"{finding.row}: " if finding.row else ""
            console.print(f"{finding.severity} {rule}: {row}{finding.message}", markup=False)
        if len(found) > _SHOWN_OF_A_RULE:
            console.print(f"  and {len(found) - _SHOWN_OF_A_RULE} more like these; --json lists all of them")
        console.print(f"  to do: {found[0].advice}", markup=False)


def _device_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--device", required=True, help="Name of the new table; the name of its file."),
        click.option("--chip", required=True, help="Processor that computed, such as 'Snapdragon 855'."),
        click.option("--runtime", required=True, help="Software that executed it, such as TFLite."),
        click.option("--precision", required=True, type=click.Choice(["fp32", "fp16", "bf16", "int8"])),
        click.option("--board", default="", help="Product that carries the chip."),
        click.option("--runtime-version", default="", help="Its exact version."),
        click.option("--threads", type=click.IntRange(min=1), help="CPU threads that computed."),
        click.option("--power-mode", default="", help="Power mode or governor."),
        click.option("--clocks", default="unknown: not stated in the source", help="Clock rates, in words."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "format_", required=True, type=click.Choice(_FORMATS), help="What wrote the files.")
@_device_options
@click.option("--source", required=True, help="Where the figures come from, for a reader to check.")
@click.option("--licence", required=True, help="SPDX identifier of their licence, such as Apache-2.0.")
@click.option("--error", "rel_sigma", type=click.FloatRange(0.0, 1.0), default=0.1, show_default=True,
              help="Expected relative error of a network beyond that of its rows; no file tells it.")  # fmt: skip
@click.option("--subnet", type=click.Path(path_type=Path, dir_okay=False),
              help="subnet.json of the network that a profile is of.")  # fmt: skip
@click.option("--network-latency", type=Quantity("DURATION", parse_latency_ms),
              help="Its latency without the profiler, such as 4.2ms.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="The table.  [default: latency_tables/<device>.json]")  # fmt: skip
@json_option
def import_(
    files: tuple[Path, ...],
    format_: str,
    source: str,
    licence: str,
    rel_sigma: float,
    subnet: Path | None,
    network_latency: float | None,
    out: Path | None,
    as_json: bool,
    **device: Any,
) -> None:
    """Make a table of latencies that others measured.

    Rows count as measured, the table as derived. What is no block of ours is listed with the reason, never dropped;
    whole networks are refused. YAML needs the extra "tables".
    """
    from nas2edge.device import Device
    from nas2edge.latency.imported import imported_table, read_foreign
    from nas2edge.plan import plan

    described = Device(name=device.pop("device"), **device)
    path = _output(described.name, out)
    layers: tuple[LayerSpec, ...] = ()
    if subnet is not None:
        from nas2edge.subnet_file import read_subnet

        file = read_subnet(subnet)
        layers = plan(file.space, file.subnet)
    if network_latency is not None and not layers:
        raise InputError("--network-latency is that of the network of --subnet, which is missing")
    read = read_foreign(files, format=format_, layers=layers)
    table = imported_table(
        read,
        described,
        source=source,
        licence=licence,
        date=datetime.date.today().isoformat(),
        rel_sigma=rel_sigma,
        network_ms=network_latency,
        layers=layers,
    )
    _write(table, path, as_json=as_json, extra={"not_mapped": dict(read.not_mapped)})
    console = result_console(as_json=as_json)
    for name, reason in list(read.not_mapped.items())[:_SHOWN]:
        console.print(f"not mapped: {name}: {reason}", markup=False)
    if len(read.not_mapped) > _SHOWN:
        console.print(f"not mapped: {len(read.not_mapped) - _SHOWN} more; --json lists all of them")


def _output(device: str, out: Path | None) -> Path:
    from nas2edge.latency.registry import USER_FOLDER

    path = USER_FOLDER / f"{device}.json" if out is None else out
    if path.name != f"{device}.json":
        raise InputError(f"--out {path} is no table of {device}: a table's file is called as its device, {device}.json")
    if out is None:
        USER_FOLDER.mkdir(exist_ok=True)
    return path


def _write(table: LatencyTable, path: Path, *, as_json: bool, extra: dict[str, Any]) -> None:
    from nas2edge.latency.lint import lint_table
    from nas2edge.latency.table_file import write_table

    report = lint_table(table)
    write_table(path, table)
    if as_json:
        echo_json(
            {
                "format": "nas2edge.table",
                "version": 1,
                "file": str(path),
                "device": table.device.to_dict(),
                "kind": table.kind,
                "rows": len(table.rows),
                "rel_sigma": table.rel_sigma,
                "protocol": dict(table.protocol),
                "findings": [asdict(finding) for finding in report.findings],
                **extra,
            }
        )
    console = result_console(as_json=as_json)
    console.print(f"{path}: {len(table.rows)} rows, {table.kind}, {table.device.label}", markup=False)
    _render_findings(console, report)


@command.command("transfer")
@click.argument("neighbour")
@click.argument("measured")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False),
              help="The new table; its name is the device's.")  # fmt: skip
@click.option("--space", "spaces", multiple=True,
              help="Space whose blocks are wanted beside the neighbour's rows; repeatable.")  # fmt: skip
@json_option
def transfer_(neighbour: str, measured: str, out: Path, spaces: tuple[str, ...], as_json: bool) -> None:
    """Turn a neighbour's table into one for a device of which 10 to 30 rows are measured.

    NEIGHBOUR and MEASURED are names of tables or .json files. The error comes from leaving each measured row out.
    """
    from nas2edge.latency.registry import load_table
    from nas2edge.latency.transfer import transfer
    from nas2edge.plan import unique_layers
    from nas2edge.spaces import load_space

    if out.suffix != ".json":
        raise InputError(f"--out {out} does not end in .json, which it must to be found again")
    moved = transfer(
        load_table(neighbour),
        load_table(measured),
        name=out.stem,
        date=datetime.date.today().isoformat(),
        layers=[layer for name in dict.fromkeys(spaces) for layer in unique_layers(load_space(name))],
    )
    extra = {
        "scheme": moved.scheme,
        "scales": dict(moved.scales),
        "rms_error": dict(moved.rms),
        "errors": dict(moved.errors),
        "unanswered": list(moved.unanswered),
        "differences": list(moved.differences),
    }
    _write(moved.table, out, as_json=as_json, extra=extra)
    console = result_console(as_json=as_json)
    scales = ", ".join(f"{part} x {scale:.3g}" for part, scale in moved.scales.items())
    console.print(f"{moved.scheme}: {scales}", markup=False)
    console.print(
        f"error of {len(moved.errors)} measured rows, each left out: {moved.rms[moved.scheme]:.1%}; "
        + ", ".join(f"{rms:.1%} by {scheme}" for scheme, rms in moved.rms.items() if scheme != moved.scheme),
        markup=False,
    )
    for difference in moved.differences:
        console.print(f"warning: the devices differ in {difference}; factors mix that in", markup=False)
    for key in moved.unanswered:
        console.print(f"not used: the neighbour knows nothing like {key}", markup=False)
