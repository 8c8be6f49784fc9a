"""nas2edge check --tables: do the latency tables of this machine still hold?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas2edge.bench.drift import DRIFTED, UNKNOWN, Drift, spot_check, why_not_here
from nas2edge.cli._common import echo_json, result_console
from nas2edge.errors import InconclusiveError, InputError, RegressionError
from nas2edge.latency.machine import read_machine
from nas2edge.latency.table_file import read_table
from nas2edge.units import format_latency


def check_tables(folder: Path, *, rows: int, as_json: bool) -> None:
    """Measures rows of every table in a folder that belongs to this machine.

    Raises:
        InputError: There is no such folder, or no table in it is of this machine.
        RegressionError: A table has drifted.
        InconclusiveError: The machine was too busy to tell.
    """
    if not folder.is_dir():
        raise InputError(f"--tables {folder} is no folder; give the folder that holds <device>.json")
    console = result_console(as_json=as_json)
    machine = read_machine()
    tables = {path: read_table(path) for path in sorted(folder.glob("*.json"))}
    others = {path: reason for path, table in tables.items() if (reason := why_not_here(table, machine))}
    if len(others) == len(tables):
        raise InputError(
            f"no table in {folder} can be measured here. "
            + "; ".join(f"{path.name}: {reason}" for path, reason in list(others.items())[:3])
            + ". Measure this machine first: nas2edge profile --device cpu"
        )
    found = []
    for path, table in tables.items():
        if path not in others:
            found.append(spot_check(table, rows=rows))
            _render(console, path, found[-1])
    if others:
        console.print(f"not of this machine, so not checked: {', '.join(path.name for path in others)}", markup=False)
    if as_json:
        echo_json({
            "format": "nas2edge.table_check",
            "version": 1,
            "tables": [_drift_dict(drift) for drift in found],
            "not_checked": {path.name: reason for path, reason in others.items()},
        })  # fmt: skip
    drifted = [drift.device for drift in found if drift.verdict == DRIFTED]
    unknown = [drift.device for drift in found if drift.verdict == UNKNOWN]
    if drifted:
        raise RegressionError(f"no longer as measured: {', '.join(drifted)}; what to do stands above")
    if unknown:
        raise InconclusiveError(f"no verdict on {', '.join(unknown)}: the machine is too busy; repeat when it is quiet")


def _render(console: Any, path: Path, drift: Drift) -> None:
    from rich.table import Table

    table = Table(title=f"{path}: {drift.verdict}", title_justify="left", box=None, pad_edge=False)
    table.add_column("block", overflow="fold")
    for name in ("table", "now", "now / table", "allowed"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in drift.rows:
        mark = " *" if row.drifted else "" if row.quiet else " (busy)"
        table.add_row(row.key, format_latency(row.table_ms), format_latency(row.measured_ms),
                      f"{row.ratio:.2f}{mark}", f"{1.0 - row.allowed:.2f} - {1.0 + row.allowed:.2f}")  # fmt: skip
    console.print(table)
    if drift.median_ratio is not None:
        console.print(f"median of the rows that count: {drift.median_ratio:.3f} times the table", markup=False)
    for change in drift.changes:
        console.print(f"note: {change}", markup=False)
    if drift.advice:
        console.print(drift.advice, markup=False)


def _drift_dict(drift: Drift) -> dict[str, Any]:
    return {
        "device": drift.device,
        "verdict": drift.verdict,
        "median_ratio": drift.median_ratio,
        "advice": drift.advice,
        "changes": list(drift.changes),
        "rows": [
            {
                "key": row.key,
                "table_ms": row.table_ms,
                "measured_ms": row.measured_ms,
                "ratio": row.ratio,
                "allowed": row.allowed,
                "quiet": row.quiet,
                "drifted": row.drifted,
            }
            for row in drift.rows
        ],
    }
