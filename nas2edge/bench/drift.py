"""Do a latency table's rows still hold on the machine that it was measured on? A spot check of some of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas2edge.errors import InputError, TableError
from nas2edge.latency.items import block_items, border_items, rows_from
from nas2edge.latency.machine import Machine, read_machine
from nas2edge.latency.measure import Request, measure_items
from nas2edge.latency.protocol import Measurement, Options, Prepare
from nas2edge.latency.table import MEASURED, LatencyTable, TableRow
from nas2edge.latency.target import check_target, device_of, make_prepare, target_of

HELD, DRIFTED, UNKNOWN = "held", "drifted", "inconclusive"
DEFAULT_ROWS = 12
ROW_TOLERANCE, TABLE_TOLERANCE = 0.10, 0.05
_SIGMAS = 3.0
_SESSION = "session_ms_taken_off_each_block"  # in the protocol of older tables, which have no borders


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDrift:
    """One row, as the table has it and as it is now.

    Args:
        key: The block.
        table_ms: The row.
        measured_ms: What it takes now.
        allowed: How far their ratio may be from 1.
        quiet: Whether the machine was left alone meanwhile; if not, the row does not count.
    """

    key: str
    table_ms: float
    measured_ms: float
    allowed: float
    quiet: bool

    @property
    def ratio(self) -> float:
        """Now over then."""
        return self.measured_ms / self.table_ms

    @property
    def drifted(self) -> bool:
        """Whether it is off by more than is allowed."""
        return self.quiet and abs(self.ratio - 1.0) > self.allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A table's spot check.

    Args:
        device: Name of the table.
        rows: Those that were measured.
        changes: What is not as it was: the runtime's version, for example.
    """

    device: str
    rows: tuple[RowDrift, ...]
    changes: tuple[str, ...]

    @property
    def median_ratio(self) -> float | None:
        """Of the rows that count; None if fewer than half of them do."""
        ratios = [row.ratio for row in self.rows if row.quiet]
        return float(np.median(ratios)) if len(ratios) * 2 >= len(self.rows) > 0 else None

    @property
    def verdict(self) -> str:
        """Of the table: "drifted" if the median ratio or a row is off, else "held"; "inconclusive" if it was busy."""
        if self.median_ratio is None:
            return UNKNOWN
        off = abs(self.median_ratio - 1.0) > TABLE_TOLERANCE
        return DRIFTED if off or any(row.drifted for row in self.rows) else HELD

    @property
    def advice(self) -> str:
        """What to measure again."""
        if self.median_ratio is None:
            return "the machine is too busy to tell; close other programs, pin the command to a free core, and repeat"
        if abs(self.median_ratio - 1.0) > TABLE_TOLERANCE:
            return "all rows have moved: measure the whole table again, with nas2edge profile --restart"
        drifted = [row.key for row in self.rows if row.drifted]
        if not drifted:
            return ""
        kinds = sorted({key.split()[0] for key in drifted})
        return (
            f"{len(drifted)} of {len(self.rows)} rows have moved ({', '.join(kinds)}); check more of them with --rows, "
            "and if they stay off measure the table again, with nas2edge profile --restart"
        )


def why_not_here(table: LatencyTable, machine: Machine) -> str:
    """Returns why a table's rows cannot be measured on this machine, "" if they can."""
    if table.kind != MEASURED:
        return f"its rows are {table.kind}, not measured"
    if table.device.chip != machine.chip:
        return f"it is of {table.device.chip}; this is {machine.chip}"
    try:
        target = target_of(table.device)
        check_target(target)
    except InputError as err:
        return str(err)
    return "its integer networks need images to be quantised with" if target.precision == "int8" else ""


def spot_check(
    table: LatencyTable,
    *,
    rows: int = DEFAULT_ROWS,
    seed: int = 0,
    options: Options | None = None,
    prepare: Prepare | None = None,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> Drift:
    """Measures some rows of a table again, by the protocol that made it.

    Args:
        table: A table of this machine, see `why_not_here`.
        rows: How many rows, from the fastest to the slowest.
        seed: Chooses them, and draws weights and the order.
        options: How thoroughly; by default as `nas2edge profile`, with one pass of repair.
        prepare: Builds items for execution; by default as the table's device says.
        progress: Called after each visit with (done, planned) of the current pass.

    Raises:
        TableError: The table has no measured rows.
    """
    rng = np.random.default_rng(seed)
    chosen = _choose(table, rows, rng)
    machine, target = read_machine(), target_of(table.device)
    here = device_of(target, machine, name=table.device.name)
    layers = {row.layer.key: replace(row.layer, name="block") for row in chosen}
    bordered = _SESSION not in table.protocol
    items = block_items(layers.values(), bordered=bordered)
    found = measure_items(
        [*items, *border_items(layers.values())] if bordered else items,
        Request(spaces=(), date="", seed=seed, options=options or replace(Options(), repairs=1)),
        prepare=prepare or make_prepare(target, rng=rng),
        device=here,
        cache_mb=machine.cache_mb,
        rng=rng,
        progress=progress,
    )
    if bordered:
        now = {row.layer.key: row for row in rows_from(layers, found)}
    else:
        now = {row.layer.key: _without_session(row, found, float(table.protocol[_SESSION])) for row in chosen}
    return Drift(
        device=table.device.name,
        rows=tuple(_row_drift(row, now[row.layer.key], quiet=found[row.layer.key].quiet) for row in chosen),
        changes=tuple(
            f"{name.replace('_', ' ')}: {then or 'unknown'} then, {after or 'unknown'} now"
            for name in ("runtime_version", "power_mode", "os")
            if (then := getattr(table.device, name)) != (after := getattr(here, name))
        ),
    )


def _choose(table: LatencyTable, n: int, rng: np.random.Generator) -> Sequence[TableRow]:
    """One row at random of each of n equal parts, ordered by latency."""
    measured = sorted((row for row in table.rows if row.status == MEASURED), key=lambda row: row.p50)
    if not measured:
        raise TableError(f"the table {table.device.name} has no measured rows to check")
    parts = np.array_split(np.arange(len(measured)), min(n, len(measured)))
    return [measured[int(rng.choice(part))] for part in parts]


def _without_session(row: TableRow, found: Mapping[str, Measurement], session_ms: float) -> TableRow:
    """A block's time as older tables have it: what entering and leaving the runtime takes is off."""
    measured = found[row.layer.key]
    off = min(session_ms, 0.8 * measured.min)
    return replace(row, p50=measured.p50 - off, rel_sigma=measured.rel_sigma, min=None, p10=None, p90=None)


def _row_drift(row: TableRow, now: TableRow, *, quiet: bool) -> RowDrift:
    allowed = max(ROW_TOLERANCE, _SIGMAS * math.hypot(row.rel_sigma, now.rel_sigma))
    return RowDrift(key=row.layer.key, table_ms=row.p50, measured_ms=now.p50, allowed=allowed, quiet=quiet)
