"""nas2edge devices: the latency tables that --device finds, and the aliases."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nas2edge.cli._common import echo_json, json_option, result_console
from nas2edge.device import Device
from nas2edge.latency.registry import TableEntry, list_aliases, list_tables
from nas2edge.latency.table import LatencyTable


@click.command("devices")
@click.option("--tables", type=click.Path(path_type=Path),
              help="Folder of latency tables of your own.  [default: latency_tables, if there is one]")  # fmt: skip
@json_option
def command(tables: Path | None, as_json: bool) -> None:
    """List latency tables with their kind and error, and the aliases.

    A measured table was timed on the device; an estimated one follows from a law and was never timed there.
    """
    entries = list_tables(tables)
    aliases = list_aliases(tables)
    if as_json:
        echo_json(
            {
                "format": "nas2edge.devices",
                "version": 1,
                "devices": [_entry_to_dict(entry) for entry in entries],
                "aliases": {alias: {"device": name, "why": why} for alias, (name, why) in aliases.items()},
            }
        )
        return
    console = result_console(as_json=False)
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for column in ("device", "kind", "error", "rows", "date", "runs on"):
        shown.add_column(column, justify="right" if column == "rows" else "left", no_wrap=column in ("device", "kind"))
    for entry in entries:
        if entry.table is not None:
            table = entry.table
            shown.add_row(
                entry.name, table.kind, _error(table), str(len(table.rows) or "law"), table.date, _runs_on(table.device)
            )
    console.print(shown)
    for alias, (name, why) in aliases.items():
        console.print(f"{alias} means {name}: {why}", soft_wrap=True)
    for entry in entries:
        if entry.error:
            console.print(f"unreadable: {entry.error}", soft_wrap=True)


def _runs_on(device: Device) -> str:
    threads = "" if device.threads is None else f"{device.threads} thread" + "s" * (device.threads != 1)
    runtime = f"{device.runtime} {device.runtime_version}".strip()
    return ", ".join(part for part in (device.board or device.chip, runtime, device.precision, threads) if part)


def _error(table: LatencyTable) -> str:
    if not table.validation:
        return f"±{100 * table.rel_sigma:.2g} % expected"
    worst = max(table.validation, key=lambda validation: validation.mape)
    return f"{worst.mape:.2g} % on {worst.nets} networks"


def _entry_to_dict(entry: TableEntry) -> dict[str, Any]:
    common = {"name": entry.name, "aliases": list(entry.aliases), "path": str(entry.path), "error": entry.error or None}
    if entry.table is None:
        return common
    table = entry.table
    return common | {
        "device": table.device.to_dict(),
        "kind": table.kind,
        "rows": len(table.rows),
        "rel_sigma": table.rel_sigma,
        "validation": [asdict(validation) for validation in table.validation],
        "date": table.date,
        "source": table.source,
        "licence": table.licence,
        "digest": table.digest,
    }
