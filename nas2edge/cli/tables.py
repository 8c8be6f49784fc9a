"""nas2edge tables: lint latency tables, import others' measurements, transfer a table to a new device."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from nas2edge.cli._common import echo_json, json_option, result_console


@click.group("tables")
def command() -> None:
    """Check, import and transfer latency tables.

    \b
    Examples:
      nas2edge tables lint latency_tables/my-board.json
    """


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
    for finding in report.findings:
        row = f"{finding.row}: " if finding.row else ""
        console.print(f"{finding.severity} {finding.rule}: {row}{finding.message}", markup=False)
        console.print(f"  to do: {finding.advice}", markup=False)
    for rule, reason in report.skipped.items():
        console.print(f"not checked {rule}: {reason}", markup=False)
    console.print(f"{file}: {len(report.errors)} errors, {len(report.warnings)} warnings", markup=False)
    if report.errors:
        raise click.exceptions.Exit(2)
