"""What bench shows: tables on the terminal, and the parts of its JSON that are its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas2edge.bench.compare import Pair
from nas2edge.bench.fingerprint import Fingerprint
from nas2edge.bench.footprint import UNITS, format_figure
from nas2edge.bench.predicted import Prediction
from nas2edge.bench.result import Result
from nas2edge.runtimes.operators import OperatorTime
from nas2edge.units import format_bytes, format_latency

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SLOWEST = 10


def render_bench(
    console: Console,
    results: Sequence[Result],
    pairs: Sequence[Pair],
    *,
    fingerprint: Fingerprint,
    conditions: Mapping[str, Any],
    operators: Sequence[Sequence[OperatorTime]],
    prediction: Prediction | None,
    plot: Path | None,
) -> None:
    """Prints everything that was found."""
    _render_times(console, results)
    _render_costs(console, results)
    for pair in pairs:
        _line(
            console,
            f"{pair.new} takes {pair.ratio.estimate:.3f} times as long as {pair.old} "
            f"[{pair.ratio.low:.3f}, {pair.ratio.high:.3f}]: {_in_words(pair)}",
        )
    for result, entries in zip(results, operators, strict=False):
        _render_operators(console, result, entries)
    if prediction is not None:
        _render_prediction(console, prediction)
    if plot is not None:
        _line(console, f"wrote {plot}")
    _render_machine(console, results, fingerprint, conditions)


@contextmanager
def bench_progress() -> Iterator[Callable[[int, int], None]]:
    """Shows rounds as they pass, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rounds", total=None)
        yield lambda done, planned: bar.update(task, completed=done, total=planned)


def pair_dict(pair: Pair) -> dict[str, Any]:
    """Returns the JSON form of a comparison."""
    ratio = pair.ratio
    return {"new": pair.new, "old": pair.old, "ratio": ratio.estimate, "low": ratio.low, "high": ratio.high}


def prediction_dict(found: Prediction) -> dict[str, Any]:
    """Returns the JSON form of a prediction beside a measurement."""
    return {
        "device": found.device,
        "predicted_ms": found.predicted_ms,
        "sigma_ms": found.sigma_ms,
        "measured_ms": found.measured_ms,
        "blocks_measured_by": "operator profile, its shares times the measured latency",
        "unmapped_ms": found.unmapped_ms,
        "blocks": [
            {
                "name": block.name,
                "predicted_ms": block.predicted_ms,
                "status": block.status,
                "measured_ms": block.measured_ms,
            }
            for block in found.blocks
        ],
    }


def _render_times(console: Console, results: Sequence[Result]) -> None:
    times = _table("a run", ("p50", "95 % interval", "p90", "p99", "min"))
    starts = _table("\nstarting up", ("runtime", "load", "first run", "memory", "of the network"))
    for result in results:
        name, timing = result.artefact.name, result.timing
        assert timing is not None
        interval = f"{format_latency(timing.p50_interval.low)} - {format_latency(timing.p50_interval.high)}"
        quantiles = [format_latency(ms) for ms in (timing.p90, timing.p99, timing.min)]
        times.add_row(name, format_latency(timing.p50), interval, *quantiles)
        memory = ["?" if size is None else format_bytes(size) for size in (timing.peak_bytes, timing.added_bytes)]
        starts.add_row(name, result.runtime, format_latency(timing.load_ms), format_latency(timing.first_ms), *memory)
    console.print(times)
    console.print(starts)


def _render_costs(console: Console, results: Sequence[Result]) -> None:
    table = _table("\ncosts that need no clock", tuple(UNITS.values()))
    for result in results:
        values = [getattr(result.footprint, name) for name in UNITS]
        shown = [
            "?" if value is None else format_figure(name, value) for name, value in zip(UNITS, values, strict=True)
        ]
        table.add_row(result.artefact.name, *shown)
    console.print(table)
    console.print()


def _render_operators(console: Console, result: Result, entries: Sequence[OperatorTime]) -> None:
    total = sum(entry.ms for entry in entries) or 1.0
    title = (
        f"\nslowest of {len(entries)} operators of {result.artefact.name} (profiling slows them down: mind the shares)"
    )
    table = _table(title, ("kind", "share", "profiled"), first="operator")
    for entry in sorted(entries, key=lambda entry: -entry.ms)[:_SLOWEST]:
        table.add_row(entry.name, entry.kind, f"{entry.ms / total:.1%}", format_latency(entry.ms))
    console.print(table)


def _render_prediction(console: Console, found: Prediction) -> None:
    title = f"\npredicted by the table {found.device}, and measured: the operator profile's shares of the measured p50"
    table = _table(title, ("row", "predicted", "measured", "difference"), first="block")
    for block in found.blocks:
        measured = "?" if block.measured_ms is None else format_latency(block.measured_ms)
        difference = "" if not block.measured_ms else f"{block.predicted_ms / block.measured_ms - 1.0:+.0%}"
        table.add_row(block.name, block.status, format_latency(block.predicted_ms), measured, difference)
    if found.unmapped_ms:
        table.add_row("(operators of no block)", "", "", format_latency(found.unmapped_ms), "")
    table.add_row(
        "whole network",
        "",
        f"{format_latency(found.predicted_ms)} +- {format_latency(found.sigma_ms)}",
        format_latency(found.measured_ms),
        f"{found.predicted_ms / found.measured_ms - 1.0:+.1%}",
    )
    console.print(table)


def _render_machine(
    console: Console, results: Sequence[Result], fingerprint: Fingerprint, conditions: Mapping[str, Any]
) -> None:
    cpus = "" if fingerprint.cpus is None else f", on cores {', '.join(map(str, fingerprint.cpus))}"
    _line(
        console,
        f"\n{fingerprint.chip}, {fingerprint.cores} cores{cpus}, governor {fingerprint.governor or 'unknown'}, "
        f"{'clock unknown' if conditions['mhz'] is None else format(conditions['mhz'], '.0f') + ' MHz'}, "
        f"load {_shown(conditions['load_a_core'])} a core at the start; {fingerprint.threads} thread(s); "
        f"{fingerprint.os}",
    )
    cold = [result.artefact.name for result in results if result.timing is not None and not result.timing.warm]
    if cold:
        _line(console, f"warning: the times of {', '.join(cold)} were not stable after warming up for a second")


def _table(title: str, columns: Sequence[str], *, first: str = "artefact") -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in columns:
        table.add_column(name, justify="left" if name in ("kind", "row", "runtime") else "right", no_wrap=True)
    return table


def _in_words(pair: Pair) -> str:
    if pair.ratio.low > 1.0:
        return "slower"
    return "faster" if pair.ratio.high < 1.0 else "no difference that these rounds can tell"


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False)
