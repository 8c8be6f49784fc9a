"""What `nas2edge export` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from nas2edge.export.request import ExportResult
    from nas2edge.export.rows import Row, Timing
    from nas2edge.export.stages import Stage

    Timings = Mapping[tuple[str, str], Timing]

_MARKS = {
    "passed": "[green]ok[/]  ",
    "failed": "[red]FAIL[/]",
    "skipped": "[yellow]--[/]  ",
    "unchecked": "[yellow]made[/]",
}


def show_stage(console: Console, stage: Stage) -> None:
    """Prints a stage on one line."""
    from rich.markup import escape

    console.print(f"  {_MARKS[stage.verdict]} {stage.name:19s} {escape(stage.summary)}  ({stage.seconds:.1f} s)")


def show_result(console: Console, result: ExportResult, timings: Timings) -> None:
    """Prints the table over targets and precisions if there is more than one row, then the files."""
    from rich.markup import escape

    if len(result.rows) > 1:
        console.print()
        console.print(_table(result.rows, timings))
        if timings:
            timing = next(iter(timings.values()))
            said = f"ms here: median of {timing.runs} runs or more, one thread, batch {timing.batch}, taking turns"
            console.print(f"{said}; half of the runs lie between those in brackets")
        for note in _notes(result.rows):
            console.print(escape(note))
    names = sorted(file.name for file in result.folder.iterdir())
    console.print(escape(f"\nwrote {result.folder}/: {', '.join(names)}"))
    if result.changed is not None:
        console.print(escape(_said_of_changes(result.changed)))
    console.print(escape(f"next: read {result.folder / 'report.md'}; it ends with the commands to run it elsewhere"))


def summary(
    targets: Sequence[str],
    stages: Sequence[Stage],
    *,
    result: ExportResult | None = None,
    timings: Timings | None = None,
    error: str = "",
) -> dict[str, Any]:
    """Returns the object of --json."""
    timings = timings or {}
    return {
        "format": "nas2edge.export",
        "version": 1,
        "passed": result is not None,
        "error": error or None,
        "bundle": str(result.folder) if result else None,
        "targets": list(targets),
        "engine_errors": result.engine_errors if result else {},
        "accuracy": result.accuracy if result else {},
        "made": [_row_dict(row, timings) for row in result.rows] if result else [],
        "changed": result.changed if result else None,
        "stages": [{"name": s.name, "verdict": s.verdict, "summary": s.summary} for s in stages],
    }


def _table(rows: Sequence[Row], timings: Timings) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("target", "precision"):
        table.add_column(name, no_wrap=True)
    for name in ("MB", "cosine", "top-1 %", "ms here"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        if not row.files:
            table.add_row(row.target, row.precision, "not built")
            continue
        timing = timings.get((row.target, row.precision))
        table.add_row(
            row.target,
            row.precision,
            f"{row.size_bytes / 1e6:.2f}",
            "not run" if row.parity is None else f"{row.parity:.6f}",
            "" if row.accuracy is None else f"{row.accuracy:.2f}",
            "" if timing is None else f"{timing.median_ms:.3f} ({timing.low_ms:.3f} to {timing.high_ms:.3f})",
        )
    return table


def _notes(rows: Sequence[Row]) -> list[str]:
    """Returns why rows were not built or not run, each reason once."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note.splitlines()[0], []).append(f"{row.target} {row.precision}")
    return [f"{', '.join(names)}: {note}" for note, names in notes.items()]


def _row_dict(row: Row, timings: Timings) -> dict[str, Any]:
    timing = timings.get((row.target, row.precision))
    return {**asdict(row), "latency": asdict(timing) if timing else None}


def _said_of_changes(changed: Sequence[str]) -> str:
    if not changed:
        return "every file is the same, to the byte, as in the bundle that was there"
    return f"other than in the bundle that was there: {', '.join(changed)}; all else is the same to the byte"
