"""Measuring a table on this machine: every block alone through ONNX Runtime, and whole networks to calibrate it.

    t(row) = t(block alone) - session

A block alone pays once more for entering and leaving the runtime. That cost is measured too, on chains of one, two and
three equal blocks (one chain minus the growth from one to three), and taken off every row. What then still differs
between a network and its sum is the calibration's part. docs/latency.md has the evidence for this choice.

>>> table = profile_cpu([load_space("tiny")], name="cpu", partial=Path("cpu.partial"))  # doctest: +SKIP
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from nas2edge._version import __version__
from nas2edge.costs import count_params
from nas2edge.device import Device
from nas2edge.errors import FormatError, InputError
from nas2edge.files import read_document, write_json
from nas2edge.latency.calibrate import fit_calibration, validate
from nas2edge.latency.machine import Machine, read_machine
from nas2edge.latency.protocol import (
    Guard,
    Item,
    Measurement,
    Options,
    Prepare,
    Timed,
    Visits,
    measure,
    visits_from_dict,
)
from nas2edge.latency.table import MEASURED, LatencyTable, TableRow, Validation
from nas2edge.plan import LayerSpec, plan, unique_layers
from nas2edge.space import SearchSpace

logger = logging.getLogger(__name__)

PARTIAL_FORMAT, PARTIAL_VERSION = "nas2edge.latency_partial", 1
DEFAULT_NETS = 50  # of each space; two fifths calibrate, the others validate
_UNCALIBRATED_REL_SIGMA = 0.1
_SESSION_CHAINS = tuple((hw, chs) for hw in (4, 6, 8) for chs in (16, 24, 32))
_LEAST_SHARE = 0.2  # a row keeps at least this share of its block's time, however large the session's part
_NET_SHARE = 2.0
_SESSION_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Net:
    """A whole network to measure: its item and the space that it was drawn from."""

    space: str
    item: Item
    calibrates: bool


def profile_cpu(
    spaces: Sequence[SearchSpace],
    *,
    name: str,
    date: str,
    threads: int = 1,
    seed: int = 0,
    options: Options | None = None,
    nets: int = DEFAULT_NETS,
    layers: Sequence[LayerSpec] | None = None,
    partial: Path | None = None,
    command: str = "",
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> LatencyTable:
    """Measures the blocks of spaces on this machine through ONNX Runtime, then calibrates and validates.

    Args:
        spaces: The spaces whose blocks and networks are measured.
        name: Name of the table.
        date: ISO date.
        threads: Threads inside an operator; operators run one after the other.
        seed: Draws networks, weights and the order.
        options: How thoroughly to measure.
        nets: Whole networks of each space; two fifths calibrate, the others validate.
        layers: Only these blocks, rather than all of the spaces.
        partial: File to save to on the way and to go on from, if it exists.
        command: The command line, for the protocol.
        progress: Called with (done, planned) of the current pass.

    Raises:
        InputError: The partial file belongs to another measurement, or cannot be written.
        FormatError: The partial file cannot be read.
    """
    options = options or Options()
    rng = np.random.default_rng(seed)
    prepare = ort_prepare(rng, threads=threads)
    machine = read_machine()
    device = _device(machine, name=name, threads=threads)
    return build_table(
        spaces,
        prepare=prepare,
        device=device,
        cache_mb=machine.cache_mb,
        protocol={
            "tool": f"nas2edge {__version__} profile",
            "command": command,
            "runtime_options": f"intra_op_num_threads={threads}, inter_op_num_threads=1, sequential, IO binding"
            + ("" if threads == 1 else ", spinning as by default"),
            "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "governor": machine.governor or "unknown: the system does not tell",
            "mhz_at_start": machine.mhz,
            "cache_mb": machine.cache_mb,
        },
        date=date,
        seed=seed,
        options=options,
        nets=nets,
        layers=layers,
        partial=partial,
        progress=progress,
        rng=rng,
    )


def build_table(
    spaces: Sequence[SearchSpace],
    *,
    prepare: Prepare,
    device: Device,
    cache_mb: float | None,
    protocol: Mapping[str, Any],
    date: str,
    seed: int,
    options: Options,
    nets: int,
    rng: np.random.Generator,
    layers: Sequence[LayerSpec] | None = None,
    partial: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> LatencyTable:
    """Does what `profile_cpu` does, for any runtime that `prepare` stands for.

    Raises:
        InputError: The partial file belongs to another measurement, or cannot be written.
        FormatError: The partial file cannot be read.
    """
    blocks = _unique(spaces) if layers is None else {layer.key: layer for layer in layers}
    networks = [net for space in spaces for net in _draw_nets(space, nets, seed=seed)]
    items = [Item(id=key, layers=(layer,)) for key, layer in blocks.items()]
    items += [net.item for net in networks] + list(_session_items())
    context = {
        "device": device.to_dict() | {"clocks": ""},
        "spaces": [space.digest for space in spaces],
        "seed": seed,
        "nets": nets,
        "options": asdict(options),
    }
    visits = _resume(partial, context)
    guard = Guard(prepare(_chain(16, 64, n=2)), [v.reference for entries in visits.values() for v in entries])
    found = measure(
        items,
        prepare=prepare,
        guard=guard,
        options=options,
        rng=rng,
        visits=visits,
        save=lambda visits: _save(partial, context, visits),
        progress=progress,
    )
    session_ms = _session_ms(found)
    rows = tuple(_row(layer, found[key], session_ms) for key, layer in blocks.items())
    table = LatencyTable(
        device=device,
        kind=MEASURED,
        rows=rows,
        rel_sigma=_UNCALIBRATED_REL_SIGMA,
        date=date,
        source="measured by nas2edge profile",
        licence="Apache-2.0",
        protocol={
            **protocol,
            "warmup_s": options.warmup_s,
            "time_per_row_s": options.time_per_row_s,
            "sessions": options.sessions,
            "drift_limit": options.drift_limit,
            "spread_limit": options.spread_limit,
            "seed": seed,
            "session_ms_taken_off_each_block": round(session_ms, 6),
            "disturbed_rows": sum(not found[key].quiet for key in blocks),
            "disturbed_networks": sum(not found[net.item.id].quiet for net in networks),
        },
    )
    return calibrate(table, networks, found, cache_mb=cache_mb)


def calibrate(
    table: LatencyTable, nets: Sequence[_Net], found: Mapping[str, Measurement], *, cache_mb: float | None
) -> LatencyTable:
    """Fits the table's calibration on some measured networks, and validates it on the others."""

    def columns(chosen: Sequence[_Net]) -> tuple[list[float], list[float], list[float]]:
        plain = [table.estimate(net.item.layers).ms for net in chosen]
        weights = [sum(map(count_params, net.item.layers)) * table.device.value_bytes / 1e6 for net in chosen]
        return plain, weights, [found[net.item.id].p50 for net in chosen]

    # Disturbed networks say more of the machine's other work than of the table; the protocol counts them.
    quiet = [net for net in nets if found[net.item.id].quiet]
    calibration = fit_calibration(*columns([net for net in quiet if net.calibrates]), cache_mb=cache_mb)
    calibrated = replace(table, calibration=calibration)
    validations: list[Validation] = []
    errors: list[float] = []
    for space in dict.fromkeys(net.space for net in nets):
        held_out = [net for net in quiet if net.space == space and not net.calibrates]
        if held_out:
            predicted = [calibrated.estimate(net.item.layers).ms for net in held_out]
            measured = [found[net.item.id].p50 for net in held_out]
            validations.append(validate(space, predicted, measured))
            errors += [p / m - 1.0 for p, m in zip(predicted, measured, strict=True)]
    rel_sigma = float(np.sqrt(np.mean(np.square(errors)))) if errors else table.rel_sigma
    return replace(calibrated, rel_sigma=rel_sigma, validation=tuple(validations))


def ort_prepare(rng: np.random.Generator, *, threads: int) -> Prepare:
    """Returns a function that builds layers with random weights as a session of ONNX Runtime on the CPU."""
    import onnxruntime as ort

    from nas2edge.graph import chain_model, network_model, random_weights

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = 3

    def prepare(layers: Sequence[LayerSpec]) -> Timed:
        weights = random_weights(layers, rng)
        whole = layers[0].op == "first_conv" and layers[-1].op == "mbpool"
        model = network_model(layers, weights) if whole else chain_model(layers, weights)
        session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        (source,), (target,) = session.get_inputs(), session.get_outputs()
        images = rng.standard_normal(source.shape, dtype=np.float32)
        # Both ends are bound to memory of our own, so that a run copies nothing.
        binding.bind_ortvalue_input(source.name, ort.OrtValue.ortvalue_from_numpy(images))
        result = np.zeros(target.shape, dtype=np.float32)
        binding.bind_ortvalue_output(target.name, ort.OrtValue.ortvalue_from_numpy(result))
        run = session.run_with_iobinding

        def timed(n: int) -> tuple[float, float]:
            worked, start = thread_time(), perf_counter()
            for _ in range(n):
                run(binding)
            elapsed = perf_counter() - start
            # With more threads this one may rest while others compute, which says nothing.
            return elapsed, thread_time() - worked if threads == 1 else elapsed

        return timed

    return prepare


def partial_path(out: Path) -> Path:
    """Returns where a measurement that will be written to `out` saves on the way."""
    return out.with_suffix(".partial")


def _unique(spaces: Sequence[SearchSpace]) -> dict[str, LayerSpec]:
    return {layer.key: layer for space in spaces for layer in unique_layers(space)}


def _draw_nets(space: SearchSpace, n: int, *, seed: int) -> Iterator[_Net]:
    subnets = space.decode(space.sample(n, np.random.default_rng([seed, 1])))
    for i, subnet in enumerate(subnets):
        layers = plan(space, subnet)
        item = Item(id=f"net {space.name} {subnet.id}", layers=layers, share=_NET_SHARE)
        yield _Net(space=space.name, item=item, calibrates=i % 5 < 2)


def _session_items() -> Iterator[Item]:
    for hw, chs in _SESSION_CHAINS:
        for n in (1, 2, 3):
            yield Item(id=f"session hw={hw} chs={chs} n={n}", layers=_chain(hw, chs, n=n), share=_SESSION_SHARE)


def _chain(hw: int, chs: int, *, n: int) -> tuple[LayerSpec, ...]:
    return tuple(
        LayerSpec(
            name=f"chain.{i}",
            op="mbconv",
            hw_in=hw,
            hw_out=hw,
            in_chs=chs,
            mid_chs=chs,
            out_chs=chs,
            kernel_size=3,
            stride=1,
            act="swish",
            shortcut="identity",
        )
        for i in range(n)
    )


def _session_ms(found: Mapping[str, Measurement]) -> float:
    costs = []
    for hw, chs in _SESSION_CHAINS:
        one, two, three = (found[f"session hw={hw} chs={chs} n={n}"].p50 for n in (1, 2, 3))
        costs.append(two - (three - one))
    return max(0.0, float(np.median(costs)))


def _row(layer: LayerSpec, measured: Measurement, session_ms: float) -> TableRow:
    off = min(session_ms, (1.0 - _LEAST_SHARE) * measured.min)
    return TableRow(
        layer=replace(layer, name=""),
        p50=measured.p50 - off,
        status=MEASURED,
        rel_sigma=measured.rel_sigma * measured.p50 / (measured.p50 - off),
        n=measured.n,
        p10=measured.p10 - off,
        p90=measured.p90 - off,
        min=measured.min - off,
        std=measured.std,
    )


def _device(machine: Machine, *, name: str, threads: int) -> Device:
    import onnxruntime as ort

    return Device(
        name=name,
        board=machine.board,
        chip=machine.chip,
        runtime="ONNX Runtime",
        runtime_version=ort.__version__,
        precision="fp32",
        threads=threads,
        power_mode=machine.governor,
        clocks="" if machine.mhz is None else f"{machine.mhz:.0f} MHz as read at the start",
        memory=machine.memory,
        os=machine.os,
    )


def _resume(partial: Path | None, context: Mapping[str, Any]) -> Visits:
    if partial is None or not partial.exists():
        return {}
    raw = read_document(partial, format=PARTIAL_FORMAT, version=PARTIAL_VERSION)
    if raw.get("context") != context:
        raise InputError(
            f"{partial} was left by a measurement of another device, space or protocol; "
            "go on with that one's options, or start over with --restart"
        )
    try:
        visits = visits_from_dict(raw["visits"])
    except (KeyError, TypeError, AttributeError) as err:
        raise FormatError(f"{partial} is damaged: {err!r}; start over with --restart") from err
    logger.info("going on from %s: %d items were visited", partial, len(visits))
    return visits


def _save(partial: Path | None, context: Mapping[str, Any], visits: Visits) -> None:
    if partial is None:
        return
    entries = {name: [visit.to_dict() for visit in found] for name, found in visits.items()}
    write_json(partial, {"format": PARTIAL_FORMAT, "version": PARTIAL_VERSION, "context": context, "visits": entries})
