"""Latencies of a bundle's artefacts on this machine, measured as `nas2edge bench` does: in turns, each in a process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas2edge.bench.artefact import Artefact
from nas2edge.bench.measure import Options, measure_round
from nas2edge.errors import InputError
from nas2edge.export.exporter import BatchRange
from nas2edge.export.rows import Row, Timing
from nas2edge.runtimes.registry import runs_here, runtime_of


def measure_rows(
    folder: Path, rows: Sequence[Row], *, batch: BatchRange, image: tuple[int, ...]
) -> dict[tuple[str, str], Timing]:
    """Times everything in a bundle that runs here.

    Args:
        folder: The bundle.
        rows: What it holds.
        batch: Batch sizes; the usual one is timed.
        image: Shape of one image.

    Returns:
        By target and precision; rows that do not run here are left out.

    Raises:
        RuntimeFailedError: A runtime refused an artefact that it ran before.
    """
    runs = [row for row in rows if row.files and not row.note and _runtime(folder, row)]
    if not runs:
        return {}
    artefacts = [
        Artefact(
            name=f"{row.target} {row.precision}",
            path=folder / row.files[0],
            runtime=_runtime(folder, row),
            shape=(batch[1], *image),
        )
        for row in runs
    ]
    found = measure_round(artefacts, Options(same_input=False))
    return {
        (row.target, row.precision): _timing(1e3 * seconds / batch[1], batch[1])
        for row, seconds in zip(runs, found.runs, strict=True)
    }


def _timing(ms: np.ndarray, batch: int) -> Timing:
    low, median, high = (float(value) for value in np.percentile(ms, (25, 50, 75)))
    return Timing(median_ms=median, low_ms=low, high_ms=high, runs=len(ms), batch=batch)


def _runtime(folder: Path, row: Row) -> str:
    try:
        runtime = runtime_of(folder / row.files[0])
    except InputError:
        return ""
    return runtime if runs_here(runtime) else ""
