"""Transferring a neighbour's table: some 10 to 30 measured rows of a new device turn it into one for that device.

>>> moved = transfer(load_table("pixel-6"), measured, name="my-phone", layers=layers, date="2026-01-31")
>>> moved.table.rel_sigma
0.04

Devices with one runtime differ mostly by one factor: a table moves from one phone to another within 4 %. Where memory
or launches differ otherwise than arithmetic, a factor for each of four parts of a block (launches, convolutions,
depthwise convolutions, values moved) does better. Which of the two is used, and the error, come from leaving each
measured row out in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nas2edge.errors import TableError
from nas2edge.latency.roofline import PARTS, part_shares, solve_nonnegative
from nas2edge.latency.table import DERIVED, MEASURED, TRANSFERRED, LatencyTable, TableRow
from nas2edge.plan import LayerSpec

Floats = npt.NDArray[np.float64]

MIN_ROWS = 10
ONE, BY_PART = "one scale", "a scale for each part"
_GAIN = 0.9  # four scales must pay for themselves: noise alone improves a fit a little
_STRENGTH = 0.5  # how much the four lean on the one


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A transferred table, and how it came about.

    Args:
        table: The table of the new device.
        scheme: "one scale" or "a scale for each part".
        scales: Factors on the neighbour's latencies, by part.
        rms: Root mean square relative error of the measured rows, each left out in turn, by scheme.
        errors: These errors of the scheme that was used, by key.
        unanswered: Measured blocks of which the neighbour says nothing.
        differences: What differs between the two devices beyond their names.
    """

    table: LatencyTable
    scheme: str
    scales: Mapping[str, float]
    rms: Mapping[str, float]
    errors: Mapping[str, float]
    unanswered: tuple[str, ...]
    differences: tuple[str, ...]


def transfer(
    neighbour: LatencyTable, measured: LatencyTable, *, name: str, date: str, layers: Sequence[LayerSpec] = ()
) -> Transfer:
    """Returns a table for the device of `measured`.

    Args:
        neighbour: A table of another device, measured, derived or estimated.
        measured: Measured rows of the new device.
        name: Name of the new table.
        date: ISO date.
        layers: Blocks to transfer beside the neighbour's rows; needed where it is a law without rows.

    Raises:
        TableError: Fewer than ten measured blocks are known to the neighbour, or there is no block to transfer.
    """
    rows = [row for row in measured.rows if row.status == MEASURED]
    known = [row for row in rows if neighbour.answers(row.layer)]
    unanswered = tuple(row.layer.key for row in rows if not neighbour.answers(row.layer))
    if len(known) < MIN_ROWS:
        raise TableError(
            f"{len(known)} measured rows of {measured.device.name!r} are blocks that {neighbour.device.name!r} knows; "
            f"a transfer needs {MIN_ROWS}, better 30"
        )
    wanted = {layer.key: layer for layer in (*(row.layer for row in neighbour.rows), *layers)}
    if not wanted:
        raise TableError(f"{neighbour.device.name!r} is a law without rows; name the space to transfer with --space")
    targets = [layer for key, layer in wanted.items() if neighbour.answers(layer)]
    here, theirs = np.array([row.p50 for row in known]), _ms(neighbour, [row.layer for row in known])
    shares, target_shares = _shares(neighbour, targets, [row.layer for row in known])
    errors = {ONE: _left_out(theirs[:, None], here, by_part=False), BY_PART: _left_out(theirs[:, None] * shares, here)}
    rms = {scheme: float(np.sqrt(np.mean(error**2))) for scheme, error in errors.items()}
    scheme = BY_PART if rms[BY_PART] < _GAIN * rms[ONE] else ONE
    scales = _scales(theirs[:, None] * shares, here) if scheme == BY_PART else np.full(len(PARTS), _scale(theirs, here))
    moved = _ms(neighbour, targets) * (target_shares @ scales)
    sigma = rms[scheme]
    own = {row.layer.key for row in rows}
    transferred = tuple(
        TableRow(layer=replace(layer, name=""), p50=float(ms), status=TRANSFERRED, rel_sigma=sigma)
        for layer, ms in zip(targets, moved, strict=True)
        if layer.key not in own
    )
    table = LatencyTable(
        device=replace(measured.device, name=name),
        kind=DERIVED,
        rows=(*rows, *transferred),
        rel_sigma=max(sigma, measured.rel_sigma),
        date=date,
        source=f"{len(known)} rows measured ({measured.source or 'source not stated'}); the others transferred from "
        f"{neighbour.device.name} ({neighbour.source})",
        licence=neighbour.licence
        if measured.licence in ("", neighbour.licence)
        else f"{measured.licence} AND {neighbour.licence}",
        calibration=measured.calibration,
        protocol={
            "tool": "nas2edge tables transfer",
            "neighbour": neighbour.device.name,
            "neighbour_digest": neighbour.digest,
            "scheme": scheme,
            "scales": dict(zip(PARTS, scales.round(4).tolist(), strict=True)),
            "left_out": len(known),
            "rms_error": round(sigma, 4),
        },
    )
    return Transfer(
        table=table,
        scheme=scheme,
        scales=dict(zip(PARTS, scales.tolist(), strict=True)),
        rms=rms,
        errors={row.layer.key: float(error) for row, error in zip(known, errors[scheme], strict=True)},
        unanswered=unanswered,
        differences=_differences(neighbour, measured),
    )


def _ms(table: LatencyTable, layers: Sequence[LayerSpec]) -> Floats:
    return np.array([table.row(layer).ms for layer in layers])


def _shares(neighbour: LatencyTable, targets: Sequence[LayerSpec], known: Sequence[LayerSpec]) -> tuple[Floats, Floats]:
    """Shares of the parts in the known blocks and in the targets, by a roofline through all that the neighbour says."""
    everything = [*targets, *known]
    shares = part_shares(everything, _ms(neighbour, everything))
    return shares[len(targets) :], shares[: len(targets)]


def _left_out(parts: Floats, ms: Floats, *, by_part: bool = True) -> Floats:
    errors = np.zeros(len(ms))
    for i in range(len(ms)):
        kept = np.arange(len(ms)) != i
        if by_part:
            predicted = float(parts[i] @ _scales(parts[kept], ms[kept]))
        else:
            predicted = float(parts[i].sum()) * _scale(parts[kept].sum(axis=1), ms[kept])
        errors[i] = predicted / ms[i] - 1.0
    return errors


def _scale(theirs: Floats, ms: Floats) -> float:
    """The factor with the least squared relative errors."""
    ratio = theirs / ms
    return float(ratio.sum() / (ratio**2).sum())


def _scales(parts: Floats, ms: Floats) -> Floats:
    one = _scale(parts.sum(axis=1), ms)
    lean = _STRENGTH * np.eye(parts.shape[1]) / one
    matrix = np.vstack([parts / ms[:, None], lean])
    return solve_nonnegative(matrix, np.concatenate([np.ones(len(ms)), np.full(parts.shape[1], _STRENGTH)]))


def _differences(neighbour: LatencyTable, measured: LatencyTable) -> tuple[str, ...]:
    ours, theirs = measured.device, neighbour.device
    pairs = {
        name: (getattr(theirs, name), getattr(ours, name)) for name in ("runtime", "precision", "batch", "threads")
    }
    return tuple(f"{name}: {there} there, {here} here" for name, (there, here) in pairs.items() if there != here)
