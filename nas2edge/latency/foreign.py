"""What readers of other tools' files return: rows, and what did not become one, with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas2edge.errors import FormatError, TableError
from nas2edge.latency.table import MEASURED, TableRow
from nas2edge.plan import LayerSpec

UNKNOWN_SIGMA = 0.05
"""Relative error of a row whose source gives no spread; what one phone differs by from one session to the next."""

MAX_DISAGREEMENT = 1.2

_LEAST_SIGMA = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What a file of another tool holds.

    Args:
        format: Name of the format.
        rows: One a block.
        not_mapped: Why an entry is no row, by its name.
        note: What a reader of the table should know of these figures.
    """

    format: str
    rows: tuple[TableRow, ...]
    not_mapped: Mapping[str, str]
    note: str


def merge(parts: Sequence[Foreign]) -> Foreign:
    """Joins what several files of one format hold; a block that several have gets the mean over their runs.

    Raises:
        FormatError: Two files disagree on a block by more than 20 %: they are versions, or of two devices.
    """
    same: dict[str, list[TableRow]] = {}
    not_mapped: dict[str, str] = {}
    for part in parts:
        not_mapped |= part.not_mapped
        for row in part.rows:
            same.setdefault(row.layer.key, []).append(row)
    rows = tuple(rows[0] if len(rows) == 1 else _mean(rows) for rows in same.values())
    return Foreign(format=parts[0].format, rows=rows, not_mapped=not_mapped, note=parts[0].note)


def _mean(rows: Sequence[TableRow]) -> TableRow:
    low, high = min(row.p50 for row in rows), max(row.p50 for row in rows)
    if high > MAX_DISAGREEMENT * low:
        raise FormatError(f"{rows[0].layer.key!r} stands twice, with {low} and {high} ms; import these files into "
                          "tables of their own")  # fmt: skip
    runs = sum(row.n for row in rows)
    ms = sum(row.n * row.p50 for row in rows) / runs
    # Runs of several files differ within each and between them.
    spreads = [row.std**2 * row.n for row in rows if row.std is not None]
    std = math.sqrt(sum(spreads) / runs) if len(spreads) == len(rows) else None
    sigma = max(*(row.rel_sigma for row in rows), (high - low) / (2 * ms))
    return TableRow(layer=rows[0].layer, p50=ms, status=MEASURED, rel_sigma=sigma, n=runs, std=std)


def measured_row(
    layer: LayerSpec, ms: float, *, n: int = 1, std: float | None = None, least: float | None = None
) -> TableRow:
    """Returns a row that others measured.

    Args:
        layer: The block.
        ms: Median if the source gives it, else mean.
        n: Runs; 1 if not stated.
        std: Standard deviation.
        least: Fastest run.

    Raises:
        TableError: A value is no latency.
    """
    sigma = UNKNOWN_SIGMA if std is None else max(_LEAST_SIGMA, std / ms if ms > 0 else 0.0)
    return TableRow(layer=layer, p50=ms, status=MEASURED, rel_sigma=sigma, n=n, std=std, min=least)


def read_text(path: Path) -> str:
    """Returns a text file.

    Raises:
        FormatError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as err:
        raise FormatError(f"cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise FormatError(f"{path} is not a text file") from err


def number(value: object, *, where: str) -> float:
    """Returns a positive number of a file.

    Raises:
        TableError: It is none.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError as err:
            raise TableError(f"{where} is {value!r}; expected a number of milliseconds") from err
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise TableError(f"{where} is {value!r}; expected a positive number of milliseconds")
    return float(value)
