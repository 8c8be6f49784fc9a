"""Validating a table: predicted against measured latency of whole networks that it has never seen.

>>> table, reports = validate_table(table, [space], request, prepare=prepare, rng=rng)  # doctest: +SKIP
>>> reports[0].summary.mape  # doctest: +SKIP
1.1

Networks are drawn where a search looks: 40 % uniformly over MACs (uniform sampling alone hardly sees the small ones),
40 % near the front of MACs against predicted latency, 10 % extremes, the rest at random. They are measured by the
protocol of the table, interleaved in random order, as the graphs that `nas2edge export` emits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nas2edge.additive import AdditiveMetric
from nas2edge.costs import count_macs
from nas2edge.errors import InconclusiveError
from nas2edge.latency.calibrate import in_memory_state, validate
from nas2edge.latency.items import network_item, uniform_over_macs
from nas2edge.latency.machine import read_machine
from nas2edge.latency.measure import Progress, cross_fitted, measure_saved, no_progress
from nas2edge.latency.protocol import MEMORY_MS, REFERENCE_MS, Measurement, Options, Prepare, machine_state
from nas2edge.latency.table import LatencyTable, Validation
from nas2edge.plan import LayerSpec, plan
from nas2edge.space import Codes, SearchSpace, SubnetConfig

UNIFORM, FRONT, EXTREME, RANDOM = ROLES = ("uniform over MACs", "near the front", "extreme", "random")

MIN_QUIET = 0.5
_SHARES = {UNIFORM: 0.4, FRONT: 0.4, EXTREME: 0.1}
_SAMPLED = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRequest:
    """How to validate.

    Args:
        nets: Whole networks to measure of each space.
        seed: Draws networks, weights and the order.
        options: How thoroughly to measure.
        partial: File to save to on the way and to go on from, if it exists.
        calibrate: Whether to fit the table's calibration anew to the networks. Then the report is on predictions of
            every fifth of them by a fit to the others.
    """

    nets: int = 100
    seed: int = 1000
    options: Options = field(default_factory=Options)
    partial: Path | None = None
    calibrate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedNet:
    """One network, predicted and measured, in milliseconds.

    Args:
        id: Of the sub-network.
        subnet: What was chosen for each of its genes.
        role: Why it was drawn, one of `ROLES`.
        resolution: Side of its images.
        macs: Its multiply-accumulates.
        predicted_ms: What the table says.
        sigma_ms: The error that the table states.
        measured_ms: What it took.
        measured_rel_sigma: Error of that measurement.
        quiet: Whether the machine was left alone meanwhile; if not, the network does not count.
        predicted_now_ms: What the table says when it is told how fast the memory is now; None where that is unknown,
            or was fitted to.
    """

    id: str
    subnet: SubnetConfig
    role: str
    resolution: int
    macs: int
    predicted_ms: float
    sigma_ms: float
    measured_ms: float
    measured_rel_sigma: float
    quiet: bool
    predicted_now_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """What validating a table found.

    Args:
        table: Name of the table.
        digest: Its digest.
        space: Where the networks come from.
        nets: The networks.
        summary: Statistics of those that count.
        within_one_sigma: Share of them that lie within the error that the table states; honest tables have about 0.68.
        by_role: Mean absolute and median signed error in percent, and the number, by role.
        by_resolution: The same by resolution.
        memory_slower: How much longer the copy in memory took than when the table was measured, as a share of that;
            None where either was not timed. Networks that need more than the cache are slower by part of it.
        reference_slower: The same of the reference block: another clock, or threads that wait longer for each other.
        summary_now: The summary of predictions that were told how fast the memory is now; None where there are none.
    """

    table: str
    digest: str
    space: str
    nets: tuple[ValidatedNet, ...]
    summary: Validation
    within_one_sigma: float
    by_role: Mapping[str, Mapping[str, float]]
    by_resolution: Mapping[str, Mapping[str, float]]
    memory_slower: float | None = None
    reference_slower: float | None = None
    summary_now: Validation | None = None

    @property
    def disturbed(self) -> int:
        """Networks that do not count, since the machine was busy."""
        return sum(not net.quiet for net in self.nets)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self) | {"disturbed": self.disturbed}


def draw_validation_nets(
    space: SearchSpace, table: LatencyTable, n: int, *, rng: np.random.Generator
) -> list[tuple[str, SubnetConfig]]:
    """Draws n distinct networks with the role of each; fewer only if the space has fewer.

    Raises:
        TableError: Blocks of the space have no row and nothing to estimate them from.
    """
    macs = AdditiveMetric(space, count_macs)
    wanted = {role: round(share * n) for role, share in _SHARES.items()}
    drawn = {
        EXTREME: _extremes(space, macs)[: wanted[EXTREME]],
        UNIFORM: uniform_over_macs(space, wanted[UNIFORM], rng=rng),
        FRONT: _near_front(space, table, macs, wanted[FRONT], rng),
        RANDOM: space.sample(2 * n, rng),
    }
    found: dict[tuple[int, ...], str] = {}
    for role, codes in drawn.items():
        for row in codes.tolist():
            if len(found) < n:
                found.setdefault(tuple(row), role)
    subnets = space.decode(np.array(list(found), dtype=np.int64).reshape(-1, len(space.genes)))
    return list(zip(found.values(), subnets, strict=True))


def validate_table(
    table: LatencyTable,
    spaces: Sequence[SearchSpace],
    request: ValidationRequest,
    *,
    prepare: Prepare,
    rng: np.random.Generator,
    progress: Progress = no_progress,
) -> tuple[LatencyTable, tuple[ValidationReport, ...]]:
    """Measures networks here and compares them with what a table says of them.

    Args:
        table: The table.
        spaces: Where the networks come from; those of all are measured in one order.
        request: How many, and how.
        prepare: Builds networks for the table's runtime (`nas2edge.latency.target`).
        rng: Draws the order.
        progress: Called with (done, planned) of the current pass.

    Returns:
        The table, calibrated anew if the request says so, and the report of each space.

    Raises:
        TableError: Blocks of the space have no row and nothing to estimate them from.
        InputError: The partial file belongs to another validation, or cannot be written.
        FormatError: The partial file cannot be read.
        InconclusiveError: The machine was busy during more than half of the networks.
    """
    drawn = [
        _Drawn(space, role, subnet)
        for space in spaces
        for role, subnet in draw_validation_nets(
            space, table, request.nets, rng=np.random.default_rng([request.seed, 2])
        )
    ]
    context = {
        "table": table.digest,
        "spaces": [space.digest for space in spaces],
        "seed": request.seed,
        "nets": request.nets,
        "options": asdict(request.options),
    }
    cache_mb = read_machine().cache_mb
    found = measure_saved([network_item(net.name, net.layers) for net in drawn], partial=request.partial,
                          context=context, options=request.options, prepare=prepare, cache_mb=cache_mb, rng=rng,
                          progress=progress)  # fmt: skip
    state = machine_state(found.values())
    predicted: dict[str, float] = {}
    slower = _slower(state.get(MEMORY_MS), table.protocol.get(MEMORY_MS))
    now = None if slower is None else replace(table, calibration=in_memory_state(table.calibration, slower))
    if request.calibrate:
        now = None
        # In this order every space and role has its share in every fifth.
        quiet = [net for net in drawn if found[net.name].quiet]
        measured = np.array([found[net.name].p50 for net in quiet])
        table, ms = cross_fitted(table, [net.layers for net in quiet], measured, cache_mb=cache_mb)
        table = replace(table, protocol={**table.protocol, **state})
        predicted = dict(zip((net.name for net in quiet), ms.tolist(), strict=True))
    reports = []
    for space in spaces:
        nets = [
            _validated(table, net, found[net.name], predicted_ms=predicted.get(net.name), now=now)
            for net in drawn
            if net.space is space
        ]
        reports.append(report_of(table, space, nets, state=state))
    return table, tuple(reports)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A network to measure."""

    space: SearchSpace
    role: str
    subnet: SubnetConfig

    @property
    def name(self) -> str:
        return f"{self.space.name} {self.subnet.id}"

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        return plan(self.space, self.subnet)


def report_of(
    table: LatencyTable, space: SearchSpace, nets: list[ValidatedNet], *, state: Mapping[str, float | None]
) -> ValidationReport:
    """Returns the statistics of measured networks.

    Args:
        state: Of the machine meanwhile (`protocol.machine_state`).

    Raises:
        InconclusiveError: The machine was busy during more than half of the networks.
    """
    quiet = [net for net in nets if net.quiet]
    if len(quiet) < MIN_QUIET * len(nets) or not quiet:
        raise InconclusiveError(
            f"the machine was busy during {len(nets) - len(quiet)} of {len(nets)} networks; close other programs, pin "
            "the command to a free core as with taskset, and run it again: it goes on with those"
        )
    measured = [net.measured_ms for net in quiet]
    told = [net.predicted_now_ms for net in quiet if net.predicted_now_ms is not None]
    off = [abs(net.predicted_ms - net.measured_ms) <= net.sigma_ms for net in quiet]
    return ValidationReport(
        table=table.device.name,
        digest=table.digest,
        space=space.name,
        nets=tuple(nets),
        summary=validate(space.name, [net.predicted_ms for net in quiet], measured),
        within_one_sigma=float(np.mean(off)),
        by_role=_by(quiet, lambda net: net.role),
        by_resolution=_by(quiet, lambda net: str(net.resolution)),
        memory_slower=_slower(state.get(MEMORY_MS), table.protocol.get(MEMORY_MS)),
        reference_slower=_slower(state.get(REFERENCE_MS), table.protocol.get(REFERENCE_MS)),
        summary_now=validate(space.name, told, measured) if len(told) == len(quiet) else None,
    )


def _slower(now: float | None, before: float | None) -> float | None:
    return now / before - 1.0 if now and before else None


def _validated(
    table: LatencyTable, net: _Drawn, measured: Measurement, *, predicted_ms: float | None, now: LatencyTable | None
) -> ValidatedNet:
    layers = net.layers
    estimate = table.estimate(layers)
    return ValidatedNet(
        id=net.subnet.id,
        subnet=net.subnet,
        role=net.role,
        resolution=net.subnet.resolution,
        macs=sum(map(count_macs, layers)),
        predicted_ms=estimate.ms if predicted_ms is None else predicted_ms,
        sigma_ms=estimate.sigma_ms,
        measured_ms=measured.p50,
        measured_rel_sigma=measured.rel_sigma,
        quiet=measured.quiet,
        predicted_now_ms=None if now is None else now.estimate(layers).ms,
    )


def _by(nets: list[ValidatedNet], key: Callable[[ValidatedNet], str]) -> dict[str, dict[str, float]]:
    groups: dict[str, list[float]] = {}
    for net in nets:
        groups.setdefault(key(net), []).append(100 * (net.predicted_ms / net.measured_ms - 1.0))
    return {
        name: {"nets": len(errors), "mape": float(np.abs(errors).mean()), "bias": float(np.median(errors))}
        for name, errors in sorted(groups.items())
    }


def _near_front(
    space: SearchSpace, table: LatencyTable, macs: AdditiveMetric, n: int, rng: np.random.Generator
) -> Codes:
    """Of many random networks those with the most MACs for their predicted latency, at n latencies."""
    codes = space.sample(_SAMPLED, rng)
    latency = table.metric(space)(codes)
    edges = np.quantile(latency, np.linspace(0, 1, n + 1))
    part = np.clip(np.searchsorted(edges, latency, side="right") - 1, 0, max(n - 1, 0))
    rate = macs(codes) / latency
    best = [int(np.flatnonzero(part == i)[rate[part == i].argmax()]) for i in range(n) if (part == i).any()]
    return codes[best]


def _extremes(space: SearchSpace, macs: AdditiveMetric) -> Codes:
    """The smallest and largest network, then those of each resolution."""
    ends = [macs.minimum().codes, macs.maximum().codes]
    column = space.genes.index("resolution")
    for i in range(len(space.resolution)):
        for end in ends[:2]:
            other = end.copy()
            other[0, column] = i
            ends.append(other)
    return np.concatenate(ends)
