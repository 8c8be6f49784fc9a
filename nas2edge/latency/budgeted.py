"""Measuring a table within a budget of time: the most informative blocks first, the others filled.

Borders, networks and a first set of blocks come first. Then, round by round, a model is fitted to what was measured and
chooses the next blocks (`nas2edge.latency.choose`), until time is up. What is left over is interpolated
(`nas2edge.latency.fill`), each row with its error. If there is time for all, nothing is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from nas2edge.device import Device
from nas2edge.errors import InconclusiveError
from nas2edge.latency.choose import block_weights, choose
from nas2edge.latency.fill import common_rel_sigma, fill_rows, fit_fill
from nas2edge.latency.items import block_items, border_id, border_items, rows_from, shapes_of
from nas2edge.latency.measure import (
    Progress,
    Request,
    all_nets,
    calibrate,
    measure_items,
    no_progress,
    partial_context,
    protocol_entries,
)
from nas2edge.latency.partial import count_visits, resume
from nas2edge.latency.protocol import Item, Measurement, Prepare
from nas2edge.latency.roofline import MIN_ROWS
from nas2edge.latency.table import MEASURED, LatencyTable, TableRow
from nas2edge.plan import LayerSpec

_FIRST_ROWS = 48
_LEAST_ROUND = 8
_ROUND_SHARE = 0.35  # of the time that is left
_NETWORK_SHARE = 0.25  # of the budget, at most
_LEAST_NETS = 10
_UNCALIBRATED_REL_SIGMA = 0.1


def build_within(
    request: Request,
    *,
    seconds: float,
    prepare: Prepare,
    device: Device,
    cache_mb: float | None,
    protocol: Mapping[str, Any],
    rng: np.random.Generator,
    progress: Progress = no_progress,
    clock: Callable[[], float] = perf_counter,
) -> LatencyTable:
    """Does what `nas2edge.latency.measure.build_table` does, within some seconds.

    What an interrupted measurement left counts in addition.

    Args:
        request: What to measure, and how.
        seconds: The budget. A visit that has begun is finished, and fitting takes some seconds more.
        prepare: Builds items.
        device: What is measured.
        cache_mb: Last-level cache, None if unknown.
        protocol: What the table says of the circumstances.
        rng: Draws the order, and the networks that say which blocks matter.
        progress: Called with (done, planned) of the current pass.
        clock: Tells seconds.

    Raises:
        InputError: The partial file belongs to another measurement, or cannot be written.
        FormatError: The partial file cannot be read.
        InconclusiveError: The budget is too short for 24 blocks, the least that the others can be filled from.
    """
    started = clock()
    blocks = request.blocks
    layers = list(blocks.values())
    visits = resume(request.partial, partial_context(request, device))
    visited = count_visits(visits)
    networks = all_nets(replace(request, nets=_affordable_nets(request, seconds)))
    found: dict[str, Measurement] = {}

    def left() -> float:
        return seconds - (clock() - started)

    def measure_now(items: Sequence[Item]) -> None:
        found.update(
            measure_items(items, request, prepare=prepare, device=device, cache_mb=cache_mb, rng=rng, progress=progress,
                          visits=visits, deadline=lambda: left() <= 0)
        )  # fmt: skip

    resumed = [i for i, layer in enumerate(layers) if layer.key in visits]
    chosen = [*resumed, *choose(layers, block_weights(request.spaces, layers, rng=rng),
                                n=max(0, _FIRST_ROWS - len(resumed)), chosen=resumed)]  # fmt: skip
    essential = [*border_items(layers), *(net.item for net in networks)]
    measure_now([*block_items([layers[i] for i in chosen]), *essential])
    while len(chosen) < len(layers):
        cost = (clock() - started) / max(1, len(found) - len(resumed))
        n = math.ceil(max(_LEAST_ROUND, _ROUND_SHARE * left() / cost))
        if left() < _LEAST_ROUND * cost:
            break
        more = _next(request, layers, chosen, found, n=n, rng=rng)
        chosen += more
        measure_now(block_items([layers[i] for i in more]))
    measured = _measured(blocks, found)
    if len(measured) < min(MIN_ROWS, len(layers)):
        raise InconclusiveError(
            f"{seconds:.3g} s were enough for {len(measured)} of {len(layers)} blocks, and filling the others needs "
            f"{MIN_ROWS}; run the same command again to go on, or give a larger --budget"
        )
    rows = fill_rows(layers, measured)
    table = LatencyTable(
        device=device,
        kind=MEASURED,
        rows=rows,
        rel_sigma=_UNCALIBRATED_REL_SIGMA,
        date=request.date,
        source="measured by nas2edge profile",
        licence="Apache-2.0",
        protocol={
            **protocol,
            **protocol_entries(request, found),
            "borders": "blocks between thin convolutions, whose own time is taken off",
            "budget_s": seconds,
            "seconds": round(clock() - started),
            "resumed_visits": visited,
            "measured_rows": len(measured),
            "interpolated_rows": len(rows) - len(measured),
            "disturbed_rows": sum(not found[row.layer.key].quiet for row in measured),
            "disturbed_networks": sum(not found[net.item.id].quiet for net in networks if net.item.id in found),
        },
    )
    calibrated = calibrate(table, networks, found, cache_mb=cache_mb)
    common = common_rel_sigma(rows, [net.item.layers for net in networks])
    return replace(calibrated, rel_sigma=max(calibrated.rel_sigma, common))


def _affordable_nets(request: Request, seconds: float) -> int:
    each = 2 * request.options.time_per_row_s + request.options.sessions * request.options.warmup_s + 0.1
    afforded = int(_NETWORK_SHARE * seconds / each / max(1, len(request.spaces)))
    return min(request.nets, max(_LEAST_NETS, afforded))


def _next(
    request: Request,
    layers: Sequence[LayerSpec],
    chosen: Sequence[int],
    found: Mapping[str, Measurement],
    *,
    n: int,
    rng: np.random.Generator,
) -> list[int]:
    rows = _measured({layers[i].key: layers[i] for i in chosen}, found)
    if len(rows) < MIN_ROWS:
        return choose(layers, block_weights(request.spaces, layers, rng=rng), n=n, chosen=chosen)
    model = fit_fill([row.layer for row in rows], [row.p50 for row in rows])
    ms, _ = model.predict(layers)
    weights = block_weights(request.spaces, layers, rng=rng, ms=ms)
    return choose(layers, weights, n=n, chosen=chosen, kernel=model.kernel)


def _measured(blocks: Mapping[str, LayerSpec], found: Mapping[str, Measurement]) -> tuple[TableRow, ...]:
    """Returns the rows of blocks that were measured with both their borders; time may have been up in between."""
    complete = {
        key: layer
        for key, layer in blocks.items()
        if key in found and all(border_id(shape) in found for shape in shapes_of(layer))
    }
    return rows_from(complete, found)
