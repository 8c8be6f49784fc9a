"""What `nas2edge search` must keep to: options become latency tables, constraints and alternatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas2edge.errors import InputError
from nas2edge.search.objective import DEVICE_METRICS, Constraint, Objective
from nas2edge.units import parse_latency_ms

if TYPE_CHECKING:
    from nas2edge.latency.table import LatencyTable

OBJECTIVES = {
    "latency": "latency_ms",
    "energy": "energy_mj",
    "macs": "macs",
    "params": "params",
    "size": "size_bytes",
    "memory": "memory_bytes",
}
"""What accuracy can be traded off against, by its name on the command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a search is told.

    Args:
        tables: Latency tables by device.
        constraints: Limits that hold for every sub-network.
        alternatives: Sets of further limits, each with a sub-network of its own.
        latencies: The several values of --latency, one an alternative; none where there is but one.
        one_for_all: Whether the first alternative is all devices' limits, and the others each device's own.
        objectives: What to trade off; None leaves it to the search.
        warnings: What is wrong with tables that are used all the same.
    """

    tables: Mapping[str, LatencyTable]
    constraints: tuple[Constraint, ...]
    alternatives: tuple[tuple[Constraint, ...], ...] = ()
    latencies: tuple[float, ...] = ()
    one_for_all: bool = False
    objectives: tuple[Objective, ...] | None = None
    warnings: tuple[str, ...] = ()


def parse_latencies(text: str) -> tuple[float, ...]:
    """Reads latencies with their units, separated by commas: "20ms,15ms".

    Raises:
        UnitError: One is no positive number with a unit of time.
        InputError: One is given twice.
    """
    latencies = tuple(parse_latency_ms(part) for part in text.split(","))
    if len(set(latencies)) < len(latencies):
        raise InputError(f"--latency {text} names a limit twice; give each once")
    return latencies


def read_limits(
    *,
    devices: Sequence[str],
    latency: tuple[float, ...],
    counts: Mapping[str, int | None],
    energy: float | None,
    traded: Sequence[str],
    confidence: float | None,
    one_for_all: bool,
    folder: Path | None,
    force_table: bool = False,
) -> Limits:
    """Returns the limits that the options ask for.

    Args:
        devices: NAME or NAME:LIMIT.
        latency: Limits in milliseconds of every device without its own; several give an alternative each.
        counts: Limits by metric that need no device.
        energy: Limit in millijoules of every device.
        traded: Names of `OBJECTIVES`; none leaves them to the search.
        confidence: Probability with which latencies keep their limits; None for the prediction itself.
        one_for_all: Whether to compare one sub-network for all devices with one for each.
        folder: Latency tables of the user's own.
        force_table: Whether to use tables that fail lint.
    """
    own = _device_limits(devices)
    _check_latency(latency, own, confidence=confidence, one_for_all=one_for_all)
    _check_energy(energy, traded, own)
    tables = _load_tables(own, folder)
    loaded = {table.device.name: table for table in tables.values()}
    limits = {table.device.name: own[name] for name, table in tables.items()}
    constraints = [Constraint(metric=name, limit=limit) for name, limit in counts.items() if limit is not None]
    if energy is not None:
        constraints += [Constraint(metric="energy_mj", limit=energy, device=name) for name in loaded]
    always, alternatives = _latency_constraints(limits, latency, confidence=confidence, one_for_all=one_for_all)
    return Limits(
        tables=loaded,
        constraints=(*always, *constraints),
        alternatives=alternatives,
        latencies=latency if len(latency) > 1 else (),
        one_for_all=one_for_all,
        objectives=_objectives(traded, list(loaded)),
        warnings=_lint(tables, folder, force=force_table),
    )


def _latency_constraints(
    limits: Mapping[str, float | None], latency: tuple[float, ...], *, confidence: float | None, one_for_all: bool
) -> tuple[list[Constraint], tuple[tuple[Constraint, ...], ...]]:
    """Returns the limits that always hold, and the alternatives."""
    margin = 0.5 if confidence is None else confidence
    by_device = {
        name: [
            Constraint(metric="latency_ms", limit=value, device=name, confidence=margin)
            for value in ((limit,) if limit is not None else latency)
        ]
        for name, limit in limits.items()
    }
    if one_for_all:
        each = tuple(map(tuple, by_device.values()))
        return [], (tuple(one for some in each for one in some), *each)
    always = [one for name, some in by_device.items() for one in some if limits[name] is not None or len(latency) == 1]
    if len(latency) < 2:
        return always, ()
    several = [some for name, some in by_device.items() if limits[name] is None]
    return always, tuple(zip(*several, strict=True))


def _objectives(traded: Sequence[str], devices: Sequence[str]) -> tuple[Objective, ...] | None:
    if not traded:
        return None
    costs = [
        Objective(metric=metric, direction="min", device=device)
        for metric in dict.fromkeys(OBJECTIVES[name] for name in traded)
        for device in (devices if metric in DEVICE_METRICS else [None])
    ]
    return (Objective(metric="accuracy", direction="max"), *costs)


def _check_energy(energy: float | None, traded: Sequence[str], own: Mapping[str, float | None]) -> None:
    if own:
        return
    if energy is not None:
        raise InputError("--energy needs a device whose table states energies: --device NAME (see: nas2edge devices)")
    for name in traded:
        if OBJECTIVES[name] in DEVICE_METRICS:
            raise InputError(f"--objective {name} needs a device: --device NAME (see: nas2edge devices)")


def _device_limits(devices: Sequence[str]) -> dict[str, float | None]:
    limits: dict[str, float | None] = {}
    for text in devices:
        name, colon, limit = text.rpartition(":")
        name = name if colon else limit
        if name in limits:
            raise InputError(f"--device {name} is given twice; give each device once")
        limits[name] = parse_latency_ms(limit) if colon else None
    return limits


def _check_latency(
    latency: tuple[float, ...], own: Mapping[str, float | None], *, confidence: float | None, one_for_all: bool
) -> None:
    without = [name for name, limit in own.items() if limit is None]
    if latency and not own:
        raise InputError("--latency needs a device to hold it on: --device NAME (see: nas2edge devices)")
    if latency and not without:
        raise InputError(
            "--latency is the limit of devices without their own, and every --device has one; leave it out"
        )
    if confidence is not None and not latency and len(without) == len(own):
        raise InputError("--confidence is how surely a latency keeps its limit; give --latency or --device NAME:LIMIT")
    if one_for_all and len(own) < 2:
        raise InputError("--one-for-all-devices compares devices; give two or more by --device NAME:LIMIT")
    if one_for_all and (len(latency) > 1 or (without and not latency)):
        raise InputError("--one-for-all-devices needs one latency limit for each device: --device NAME:LIMIT")


def _load_tables(own: Mapping[str, float | None], folder: Path | None) -> dict[str, LatencyTable]:
    """Returns each device's table under the name that was given."""
    if not own:
        return {}
    from nas2edge.latency.registry import load_table

    loaded: dict[str, LatencyTable] = {}
    for name in own:
        table = load_table(name, tables=folder)
        if table.device.name in {other.device.name for other in loaded.values()}:
            raise InputError(f"--device {name} is {table.device.name}, which is given already; give each device once")
        loaded[name] = table
    return loaded


def _lint(tables: Mapping[str, LatencyTable], folder: Path | None, *, force: bool) -> tuple[str, ...]:
    """Refuses tables that fail lint; with `force`, returns what is wrong with them. Those that come along were linted.

    Raises:
        TableError: A table fails lint and `force` is not set.
    """
    if not tables:
        return ()
    from nas2edge.latency.lint import refuse_failing
    from nas2edge.latency.registry import is_shipped

    own = {name: table for name, table in tables.items() if not is_shipped(name, tables=folder)}
    return tuple(
        f"the latency table {name!r} fails lint and is used all the same: {finding.rule} {finding.message}"
        for name, table in own.items()
        for finding in refuse_failing(table, force=force)
    )
