"""Measuring a table on this machine: every block between thin ends, and whole networks to calibrate it.

    t(row) = t(block between thin ends) - half of the ends' own time at either shape

Ends are measured too, once for every shape that a block begins or ends with (`nas2edge.latency.borders`). What then
still differs between a network and its sum is the calibration's part. docs/latency.md has the evidence for this choice.

>>> table = profile_machine([load_space("tiny")], name="cpu", partial=Path("cpu.partial"))  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from nas2edge._version import __version__
from nas2edge.costs import count_params
from nas2edge.device import Device
from nas2edge.latency.calibrate import Floats, fit_calibration, held_out, validate
from nas2edge.latency.guard import Guard, make_look, memory_copy
from nas2edge.latency.items import Net, block_items, border_items, draw_nets, rows_from, unique_blocks
from nas2edge.latency.machine import Machine, read_machine
from nas2edge.latency.partial import count_visits, resume, saver
from nas2edge.latency.protocol import (
    Isolating,
    Item,
    Measurement,
    Options,
    Prepare,
    Visits,
    machine_state,
    measure,
)
from nas2edge.latency.table import MEASURED, Calibration, LatencyTable, count_launches
from nas2edge.latency.target import Quantise, Target, check_target, describe, device_of, make_prepare
from nas2edge.plan import LayerSpec
from nas2edge.space import SearchSpace

DEFAULT_NETS = 50  # of each space
_UNCALIBRATED_REL_SIGMA = 0.1

Progress = Callable[[int, int], None]
Build = Callable[..., LatencyTable]
"""Measures what a request asks for, with the arguments of `build_table`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to measure, and how.

    Args:
        spaces: The spaces whose blocks and networks are measured.
        date: ISO date.
        seed: Draws networks, weights and the order.
        options: How thoroughly to measure.
        nets: Whole networks of each space, which calibrate and validate.
        layers: Only these blocks, rather than all of the spaces.
        partial: File to save to on the way and to go on from, if it exists.
    """

    spaces: tuple[SearchSpace, ...]
    date: str
    seed: int = 0
    options: Options = field(default_factory=Options)
    nets: int = DEFAULT_NETS
    layers: tuple[LayerSpec, ...] | None = None
    partial: Path | None = None

    @property
    def blocks(self) -> dict[str, LayerSpec]:
        """The blocks to measure, by key."""
        return unique_blocks(self.spaces) if self.layers is None else {layer.key: layer for layer in self.layers}


def no_progress(done: int, planned: int) -> None:
    """Shows nothing."""


def profile_machine(
    request: Request,
    *,
    name: str,
    target: Target | None = None,
    build: Build | None = None,
    quantise: Quantise | None = None,
    command: str = "",
    progress: Progress = no_progress,
) -> LatencyTable:
    """Measures the blocks of spaces on this machine, then calibrates and validates.

    Args:
        request: What to measure.
        name: Name of the table.
        target: Runtime, precision, threads and batch; ONNX Runtime, fp32, one thread and image by default.
        build: `build_table` if None, or `nas2edge.latency.budgeted.build_within` with its seconds bound.
        quantise: Makes int8 graphs; needed for that precision.
        command: The command line, for the protocol.
        progress: Called with (done, planned) of the current pass.

    Raises:
        InputError: This machine cannot execute networks so; or the partial file belongs to another measurement, or
            cannot be written.
        FormatError: The partial file cannot be read.
        MissingDependencyError: The runtime's package is not installed.
    """
    target = target or Target()
    check_target(target)
    machine = read_machine()
    rng = np.random.default_rng(request.seed)
    return (build or build_table)(
        request,
        prepare=make_prepare(target, rng=rng, quantise=quantise),
        device=device_of(target, machine, name=name),
        cache_mb=machine.cache_mb,
        protocol=protocol_of(target, machine, command=command),
        progress=progress,
        rng=rng,
    )


def protocol_of(target: Target, machine: Machine, *, command: str) -> dict[str, Any]:
    """Returns what a measurement here says of its circumstances."""
    return {
        "tool": f"nas2edge {__version__} profile",
        "command": command,
        "runtime_options": describe(target),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "governor": machine.governor or "unknown: the system does not tell",
        "mhz_at_start": machine.mhz,
        "cache_mb": machine.cache_mb,
        "isolation": "every visit in a process of its own",
    }


def build_table(
    request: Request,
    *,
    prepare: Prepare,
    device: Device,
    cache_mb: float | None,
    protocol: Mapping[str, Any],
    rng: np.random.Generator,
    progress: Progress = no_progress,
) -> LatencyTable:
    """Does what `profile_machine` does, for any runtime that `prepare` stands for.

    Raises:
        InputError: The partial file belongs to another measurement, or cannot be written.
        FormatError: The partial file cannot be read.
    """
    started = perf_counter()
    blocks = request.blocks
    networks = all_nets(request)
    items = [*block_items(blocks.values()), *border_items(blocks.values()), *(net.item for net in networks)]
    visits = resume(request.partial, partial_context(request, device))
    resumed = count_visits(visits)
    found = measure_items(items, request, prepare=prepare, device=device, cache_mb=cache_mb, rng=rng, progress=progress,
                          visits=visits)  # fmt: skip
    table = LatencyTable(
        device=device,
        kind=MEASURED,
        rows=rows_from(blocks, found),
        rel_sigma=_UNCALIBRATED_REL_SIGMA,
        date=request.date,
        source="measured by nas2edge profile",
        licence="Apache-2.0",
        protocol={
            **protocol,
            **protocol_entries(request, found),
            "borders": "blocks between thin convolutions, whose own time is taken off",
            "disturbed_rows": sum(not found[key].quiet for key in blocks),
            "disturbed_networks": sum(not found[net.item.id].quiet for net in networks),
            "seconds": round(perf_counter() - started),
            "resumed_visits": resumed,
        },
    )
    return calibrate(table, networks, found, cache_mb=cache_mb)


def all_nets(request: Request) -> list[Net]:
    """Returns the networks that a request asks for."""
    return [net for space in request.spaces for net in draw_nets(space, request.nets, seed=request.seed)]


def measure_items(
    items: Sequence[Item],
    request: Request,
    *,
    prepare: Prepare,
    device: Device,
    cache_mb: float | None,
    rng: np.random.Generator,
    progress: Progress = no_progress,
    visits: Visits | None = None,
    deadline: Callable[[], bool] = lambda: False,
) -> dict[str, Measurement]:
    """Measures items by the protocol, with the drift guards, saved on the way.

    Args:
        items: What to measure.
        request: How; its partial file is gone on from unless `visits` are given.
        prepare: Builds items.
        device: What is measured; a partial file of another one is refused.
        cache_mb: Last-level cache, which the copy in memory must exceed.
        rng: Draws the order.
        progress: Called with (done, planned) of the current pass.
        visits: Visits that were made already.
        deadline: Whether time is up; then what was visited at least once is returned.

    Raises:
        InputError: The partial file belongs to another measurement, or cannot be written.
        FormatError: The partial file cannot be read.
    """
    return measure_saved(
        items,
        partial=request.partial,
        context=partial_context(request, device),
        options=request.options,
        prepare=prepare,
        cache_mb=cache_mb,
        rng=rng,
        progress=progress,
        visits=visits,
        deadline=deadline,
    )


def measure_saved(
    items: Sequence[Item],
    *,
    partial: Path | None,
    context: Mapping[str, Any],
    options: Options,
    prepare: Prepare,
    cache_mb: float | None,
    rng: np.random.Generator,
    progress: Progress,
    visits: Visits | None = None,
    deadline: Callable[[], bool] = lambda: False,
) -> dict[str, Measurement]:
    """Does what `measure_items` does for any purpose: `context` is what a partial file must agree with."""
    visits = resume(partial, context) if visits is None else visits
    return measure(
        items,
        prepare=prepare,
        guard=guard_for(items, prepare=prepare, cache_mb=cache_mb, visits=visits),
        options=options,
        rng=rng,
        visits=visits,
        save=saver(partial, context),
        progress=progress,
        deadline=deadline,
    )


def guard_for(items: Sequence[Item], *, prepare: Prepare, cache_mb: float | None, visits: Visits) -> Guard:
    """Returns the drift guard for items; it times the memory if one of them needs much of it."""
    memory = memory_copy(cache_mb) if any(item.streams for item in items) else None
    seen = ((visit.reference, visit.memory) for entries in visits.values() for visit in entries)
    look = prepare.reference(REFERENCE) if isinstance(prepare, Isolating) else make_look(prepare(REFERENCE))
    return Guard(look, memory=memory, seen=seen)


def partial_context(request: Request, device: Device) -> dict[str, Any]:
    """Returns what a partial file must agree with to be gone on from."""
    return {
        "device": device.to_dict() | {"clocks": ""},
        "spaces": [space.digest for space in request.spaces],
        "seed": request.seed,
        "nets": request.nets,
        "options": asdict(request.options),
    }


def protocol_entries(request: Request, found: Mapping[str, Measurement]) -> dict[str, Any]:
    """Returns how thoroughly was measured and in which state of the machine, for the table's protocol."""
    options = request.options
    return {
        "warmup_s": options.warmup_s,
        "time_per_row_s": options.time_per_row_s,
        "sessions": options.sessions,
        "drift_limit": options.drift_limit,
        "memory_limit": options.memory_limit,
        "spread_limit": options.spread_limit,
        "seed": request.seed,
        **machine_state(found.values()),
    }


def calibrate(
    table: LatencyTable, nets: Sequence[Net], found: Mapping[str, Measurement], *, cache_mb: float | None
) -> LatencyTable:
    """Calibrates a table to measured networks, and validates it on each by a fit to others (`cross_fitted`)."""

    # Disturbed networks say more of the machine's other work than of the table; the protocol counts them.
    quiet = [net for net in nets if net.item.id in found and found[net.item.id].quiet]
    measured = np.array([found[net.item.id].p50 for net in quiet])
    calibrated, predicted = cross_fitted(table, [net.item.layers for net in quiet], measured, cache_mb=cache_mb)
    validations = [
        validate(space, *(values[[net.space == space for net in quiet]] for values in (predicted, measured)))
        for space in dict.fromkeys(net.space for net in quiet)
    ]
    return replace(calibrated, validation=tuple(validations))


def cross_fitted(
    table: LatencyTable, networks: Sequence[Sequence[LayerSpec]], measured_ms: Floats, *, cache_mb: float | None
) -> tuple[LatencyTable, Floats]:
    """Calibrates a table to measured networks, and predicts each of them as if it had not been among these.

    Every fifth of the networks is predicted by a calibration to the other four. So all of them serve for both, and none
    judges a calibration that knew it.

    Returns:
        The table with a calibration to all, whose error is that of the predictions; and these, in milliseconds.
    """
    if not len(networks):
        return table, np.zeros(0)

    def predict(others: Sequence[int], ours: Sequence[int]) -> list[float]:
        part = fitted(table, [networks[i] for i in others], measured_ms[others], cache_mb=cache_mb)
        return [part.estimate(networks[i]).ms for i in ours]

    predicted = held_out(len(networks), predict)
    error = float(np.sqrt(np.mean((predicted / measured_ms - 1.0) ** 2)))
    return replace(fitted(table, networks, measured_ms, cache_mb=cache_mb), rel_sigma=error), predicted


def fitted(
    table: LatencyTable,
    networks: Sequence[Sequence[LayerSpec]],
    measured_ms: npt.ArrayLike,
    *,
    cache_mb: float | None,
) -> LatencyTable:
    """Returns the table with a calibration to measured networks."""
    plain = replace(table, calibration=Calibration())
    calibration = fit_calibration(
        [plain.estimate(layers).ms for layers in networks],
        [sum(map(count_params, layers)) * table.device.value_bytes / 1e6 for layers in networks],
        measured_ms,
        cache_mb=cache_mb,
        launches=[sum(map(count_launches, layers)) for layers in networks],
    )
    return replace(table, calibration=calibration)


def _reference_block(name: str) -> LayerSpec:
    return LayerSpec(
        name=name,
        op="mbconv",
        hw_in=16,
        hw_out=16,
        in_chs=64,
        mid_chs=64,
        out_chs=64,
        kernel_size=3,
        stride=1,
        act="swish",
        shortcut="identity",
    )


REFERENCE = Item(id="reference", layers=(_reference_block("a"), _reference_block("b")))
"""What the drift guard times."""
