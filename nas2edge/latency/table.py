"""Latency tables: milliseconds by block for one device, and what they say of a whole sub-network.

>>> table = load_table("jetson-orin-nano")  # from nas2edge.latency.registry
>>> table.estimate(plan(space, subnet))
LatencyEstimate(ms=4.53, sigma_ms=1.13, measured_share=0.0, kind='estimated', missing=())
>>> table.metric(space)(space.sample(100_000, rng)).shape
(100000,)

A whole network takes

    overhead + slope * (sum of its rows) + spill * (weights in MB - cache in MB, if positive)
             + launch * (launches - warm launches, if positive)

where the terms beside the sum come from whole networks that were measured with the rows (`Calibration`); a table
without calibration is its sum. Its sigma has two parts: each layer's own error, independent from layer to layer, and
the table's `rel_sigma`, which all layers share: sqrt(sum of (slope * row sigma)^2 + (rel_sigma * ms)^2).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nas2edge.additive import AdditiveMetric
from nas2edge.costs import count_params, peak_activations
from nas2edge.device import Device
from nas2edge.errors import TableError
from nas2edge.latency.kernels import KernelLaw, kernels
from nas2edge.latency.roofline import Roofline, fit_roofline
from nas2edge.plan import LayerSpec
from nas2edge.space import Codes, SearchSpace

MEASURED, INTERPOLATED, TRANSFERRED, ESTIMATED = STATUSES = ("measured", "interpolated", "transferred", "estimated")
DERIVED = "derived"
KINDS = (MEASURED, DERIVED, ESTIMATED)

Metric = Callable[[Codes], npt.NDArray[np.float64]]

_NAMED_MISSING = 5
_FUSED = ("relu", "swish", "hsigmoid")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """The latency of one block, in milliseconds.

    Args:
        layer: The block; its name plays no part.
        p50: Median of the runs, without bursts where it was measured here (`nas2edge.latency.protocol`): the latency
            that searches use. For a row that was not measured, the estimate.
        status: "measured", "interpolated", "transferred" or "estimated".
        rel_sigma: Its own expected one-sigma relative error.
        n: Runs that were timed; 1 if others measured it and do not say how often.
        p10: First decile of the runs; None if not measured, or not stated by others. So are p90, min and std.
        p90: Ninth decile.
        min: Fastest run.
        std: Standard deviation.
        energy_mj: Energy of one run in millijoules, as a sensor of the device measured it; None if none did.

    Raises:
        TableError: A value is not positive, quantiles are out of order, or the status and the statistics disagree.
    """

    layer: LayerSpec
    p50: float
    status: str
    rel_sigma: float
    n: int = 0
    p10: float | None = None
    p90: float | None = None
    min: float | None = None
    std: float | None = None
    energy_mj: float | None = None

    def __post_init__(self) -> None:
        for name in ("min", "p10", "p50", "p90", "energy_mj"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                unit = "millijoules" if name == "energy_mj" else "milliseconds"
                raise TableError(f"{name} is {value}; expected a positive number of {unit}")
        for name in ("std", "rel_sigma"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise TableError(f"{name} is {value}; expected zero or a positive number")
        if self.status not in STATUSES:
            raise TableError(f"status is {self.status!r}; expected one of {', '.join(STATUSES)}")
        if self.status == MEASURED and self.n < 1:
            raise TableError(f"the status is 'measured' but n is {self.n}; expected n >= 1")
        if self.status != MEASURED and self.n != 0:
            raise TableError(f"the status is {self.status!r} but n is {self.n}; expected 0, as nothing was timed")
        if self.status != MEASURED and self.energy_mj is not None:
            raise TableError(f"the status is {self.status!r} but energy_mj is {self.energy_mj}; energy is measured or "
                             "left out")  # fmt: skip
        ordered = [value for value in (self.min, self.p10, self.p50, self.p90) if value is not None]
        if ordered != sorted(ordered):
            raise TableError(f"min, p10, p50, p90 are {', '.join(map(str, ordered))}; expected ascending numbers")


class LatencyParts(NamedTuple):
    """What the latency of whole networks consists of, in milliseconds (`Calibration`); numbers or arrays alike."""

    overhead: Any
    blocks: Any
    weights: Any
    launches: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How a whole network's latency follows from the sum of its rows; fitted to whole networks of the same device.

    Args:
        overhead_ms: Cost of a run whatever the network.
        slope: Factor on the sum of rows.
        cache_mb: Weights (in 1e6 bytes) that stay in the last-level cache from one run to the next.
        spill_ms_per_mb: Cost of each further MB, which every run fetches from memory; a block alone never pays it.
        launch_ms: Cost of each launch (`nas2edge.latency.kernels`) beyond the warm ones: a block alone, run again and
            again, finds its code in the nearest cache, one of many kernels in a network does not.
        warm_launches: Launches that cost nothing more.
        large: What holds instead for networks whose weights exceed `cache_mb`, where that differs: their blocks were
            measured with their weights in the cache, and fetch them in a network.
        nets: Whole networks that were measured for the fit.
        rel_rms: Root mean square of the relative errors of the fit.

    Raises:
        TableError: The slope is not positive, or another number is negative or not finite.
    """

    overhead_ms: float = 0.0
    slope: float = 1.0
    cache_mb: float = 0.0
    spill_ms_per_mb: float = 0.0
    nets: int = 0
    rel_rms: float = 0.0
    launch_ms: float = 0.0
    warm_launches: float = 0.0
    large: Calibration | None = None

    def __post_init__(self) -> None:
        if not 0 < self.slope < math.inf:
            raise TableError(f"calibration.slope is {self.slope}; expected a positive number")
        for name in ("overhead_ms", "cache_mb", "spill_ms_per_mb", "nets", "rel_rms", "launch_ms", "warm_launches"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise TableError(f"calibration.{name} is {value}; expected zero or a positive number")

    def parts_ms(self, sum_ms: Any, weights_mb: Any, launches: Any) -> LatencyParts:
        """Returns what the latency of whole networks consists of, from sums over their layers; numbers or arrays."""
        if self.large is not None:
            kinds = [kind.parts_ms(sum_ms, weights_mb, launches) for kind in (self.large, replace(self, large=None))]
            return LatencyParts(*(np.where(weights_mb > self.cache_mb, *parts) for parts in zip(*kinds, strict=True)))
        spilled = np.maximum(0.0, weights_mb - self.cache_mb)
        cold = np.maximum(0.0, launches - self.warm_launches)
        return LatencyParts(
            self.overhead_ms, self.slope * sum_ms, self.spill_ms_per_mb * spilled, self.launch_ms * cold
        )

    def total_ms(self, sum_ms: Any, weights_mb: Any, launches: Any) -> Any:
        """Returns the latency of whole networks from sums over their layers; numbers or arrays alike."""
        return sum(self.parts_ms(sum_ms, weights_mb, launches))

    def slope_of(self, weights_mb: Any) -> Any:
        """Returns the factor on the sum of rows for networks of such weights; a number or an array alike."""
        return self.slope if self.large is None else np.where(weights_mb > self.cache_mb, self.large.slope, self.slope)


def count_launches(layer: LayerSpec) -> int:
    """Returns the kernels that a CPU runtime runs for a block, activations fused."""
    return len(kernels(layer, fused_acts=_FUSED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Predicted against measured latency of whole networks, none by a calibration that knew it.

    Args:
        space: The space that they were drawn from.
        nets: How many.
        mape: Mean absolute relative error, in percent.
        bias: Median signed relative error, in percent; positive where predictions are too high.
        within_5: Share within 5 percent.
        within_10: Share within 10 percent.
        kendall_tau: Rank correlation.
    """

    space: str
    nets: int
    mape: float
    bias: float
    within_5: float
    within_10: float
    kendall_tau: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLatency:
    """What a table says of one block: milliseconds, relative one-sigma error, and the status of its row."""

    ms: float
    rel_sigma: float
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyEstimate:
    """What a table says of a whole sub-network.

    Args:
        ms: Latency in milliseconds.
        sigma_ms: One-sigma error.
        measured_share: Share of the sum of layers that comes from measured rows, 0 to 1.
        kind: The weakest status of its layers: "measured", "interpolated", "transferred" or "estimated".
        missing: Keys of layers without a row of their own, which were interpolated or estimated.
    """

    ms: float
    sigma_ms: float
    measured_share: float
    kind: str
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Latencies by block for one device, runtime, precision and mode.

    Args:
        device: What the latencies hold for.
        kind: "measured" here, "derived" from others' measurements, or "estimated".
        rows: One row a block.
        rel_sigma: Expected one-sigma relative error of a whole network beyond the errors of the rows.
        date: ISO date of the measurement or estimate.
        source: Where the figures come from, for a reader to check.
        licence: SPDX identifier of the figures' licence.
        calibration: How rows add up to networks.
        protocol: How it was measured: tool, command, warm-up, sessions, clocks read back and so on.
        validation: One entry a space.
        law: Answers for blocks without a row; only where the table is estimated.

    Raises:
        TableError: A row stands twice, the kind is unknown, or it contradicts a row's status.
    """

    device: Device
    kind: str
    rows: tuple[TableRow, ...]
    rel_sigma: float
    date: str
    source: str
    licence: str
    calibration: Calibration = field(default_factory=Calibration)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    validation: tuple[Validation, ...] = ()
    law: KernelLaw | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TableError(f"kind is {self.kind!r}; expected one of {', '.join(KINDS)}")
        if not 0 <= self.rel_sigma < math.inf:
            raise TableError(f"rel_sigma is {self.rel_sigma}; expected zero or a positive number")
        if self.law is not None and self.kind != ESTIMATED:
            raise TableError(f"the table has a law but its kind is {self.kind!r}; expected 'estimated'")
        if not self.rows and self.law is None:
            raise TableError("the table has no rows; measure some with: nas2edge profile")
        counted: dict[str, TableRow] = {}
        for row in self.rows:
            key = row.layer.key
            if key in counted:
                raise TableError(f"row {key!r} stands twice; keep one of them")
            counted[key] = row
            if row.status == ESTIMATED and self.kind != ESTIMATED:
                raise TableError(f"row {key!r} is estimated but the table says {self.kind!r}; expected 'estimated'")
            stated = (row.min, row.p10, row.p90, row.std)
            # Other tools do not tell all of these; a table of theirs says which figures it has.
            if row.status == MEASURED == self.kind and None in stated and "figures" not in self.protocol:
                raise TableError(f"row {key!r} is measured here but lacks quantiles; expected p10, p90, min and std")
            if row.status == MEASURED and self.kind == ESTIMATED:
                raise TableError(f"row {key!r} is measured but the table says 'estimated'; expected another status")

    @cached_property
    def digest(self) -> str:
        """First twelve hex digits of the SHA-256 of the file's text: equal tables have equal digests."""
        from nas2edge.latency.table_file import table_to_text

        return hashlib.sha256(table_to_text(self).encode()).hexdigest()[:12]

    def row(self, layer: LayerSpec) -> LayerLatency:
        """Returns the latency of one block: its own row, else the law's estimate, else an interpolation.

        Raises:
            TableError: The table has no row for the block and nothing to estimate it from.
        """
        found = self._find(layer)
        if found is None:
            raise self._missing_error([layer])
        return found

    def answers(self, layer: LayerSpec) -> bool:
        """Returns whether the table has a latency for a block: a row, a law, or rows enough like it."""
        return self._find(layer) is not None

    def estimate(self, layers: Sequence[LayerSpec]) -> LatencyEstimate:
        """Returns the latency of a whole plan.

        Raises:
            TableError: Blocks have no row and nothing to estimate them from; names them.
        """
        found = [(layer, self._find(layer)) for layer in layers]
        unknown = [layer for layer, row in found if row is None]
        if unknown:
            raise self._missing_error(unknown)
        rows = [row for _, row in found if row is not None]
        sum_ms = sum(row.ms for row in rows)
        variance = sum((row.ms * row.rel_sigma) ** 2 for row in rows)
        weights_mb = sum(map(self._weights_mb, layers))
        ms = float(self.calibration.total_ms(sum_ms, weights_mb, sum(map(count_launches, layers))))
        return LatencyEstimate(
            ms=ms,
            sigma_ms=float(self._sigma_ms(ms, variance, weights_mb)),
            measured_share=sum(row.ms for row in rows if row.status == MEASURED) / sum_ms if sum_ms else 0.0,
            kind=max((row.status for row in rows), key=STATUSES.index, default=MEASURED),
            missing=tuple(dict.fromkeys(layer.key for layer in layers if layer.key not in self._by_key)),
        )

    def parts_ms(self, layers: Sequence[LayerSpec]) -> LatencyParts:
        """Returns what the latency of a plan consists of.

        Raises:
            TableError: Blocks have no row and nothing to estimate them from.
        """
        sum_ms, weights_mb = sum(self.row(layer).ms for layer in layers), sum(map(self._weights_mb, layers))
        parts = self.calibration.parts_ms(sum_ms, weights_mb, sum(map(count_launches, layers)))
        return LatencyParts(*map(float, parts))

    def metric(self, space: SearchSpace) -> Metric:
        """Returns latencies in milliseconds of populations of a space; equal to `estimate` of each sub-network.

        It is an `AdditiveMetric`, with exact extremes, unless the space has sub-networks on both sides of `cache_mb` or
        `warm_launches` and these matter.

        Raises:
            TableError: Blocks of the space have no row and nothing to estimate them from; names them.
        """
        self._check_answers(space)
        return self._metric(space, self.calibration)

    def _metric(self, space: SearchSpace, calibration: Calibration) -> Metric:
        sums = AdditiveMetric(space, lambda layer: self.row(layer).ms)
        if calibration.large is not None:
            weights = AdditiveMetric(space, self._weights_mb)
            if weights.minimum().value > calibration.cache_mb:
                return self._metric(space, calibration.large)
            if weights.maximum().value <= calibration.cache_mb:
                return self._metric(space, replace(calibration, large=None))
            launches = AdditiveMetric(space, count_launches)
            return lambda codes: np.asarray(calibration.total_ms(sums(codes), weights(codes), launches(codes)))
        hinges = (
            (calibration.spill_ms_per_mb, calibration.cache_mb, self._weights_mb),
            (calibration.launch_ms, calibration.warm_launches, count_launches),
        )
        constant = calibration.overhead_ms
        terms: list[tuple[float, Callable[[LayerSpec], float]]] = []
        for cost, free, amount in (hinge for hinge in hinges if hinge[0]):
            total = AdditiveMetric(space, amount)
            least, greatest = total.minimum().value, total.maximum().value
            if least < free < greatest:
                weights, launches = AdditiveMetric(space, self._weights_mb), AdditiveMetric(space, count_launches)
                return lambda codes: np.asarray(calibration.total_ms(sums(codes), weights(codes), launches(codes)))
            if least >= free:
                constant -= cost * free
                terms.append((cost, amount))

        def contribution(layer: LayerSpec) -> float:
            once = constant if layer.op == "first_conv" else 0.0
            return once + calibration.slope * self.row(layer).ms + sum(cost * amount(layer) for cost, amount in terms)

        return AdditiveMetric(space, contribution)

    def sigma_metric(self, space: SearchSpace) -> Metric:
        """Returns one-sigma errors in milliseconds of populations of a space, as `estimate` states them.

        Raises:
            TableError: Blocks of the space have no row and nothing to estimate them from; names them.
        """
        latency = self.metric(space)

        def variance_of(layer: LayerSpec) -> float:
            row = self.row(layer)
            return (row.ms * row.rel_sigma) ** 2

        variance, weights = AdditiveMetric(space, variance_of), AdditiveMetric(space, self._weights_mb)
        return lambda codes: np.asarray(self._sigma_ms(latency(codes), variance(codes), weights(codes)))

    def slope(self, space: SearchSpace) -> float:
        """Returns the factor on the sum of rows, of a space whose `metric` is additive."""
        return float(self.calibration.slope_of(AdditiveMetric(space, self._weights_mb).minimum().value))

    @property
    def has_energy(self) -> bool:
        """Whether any row states an energy."""
        return bool(self._energy_by_key)

    def energy_mj(self, layers: Sequence[LayerSpec]) -> float:
        """Returns the energy of one run of a whole plan in millijoules: the sum over its blocks.

        Raises:
            TableError: A block has no measured energy; energy is never estimated.
        """
        return sum(self._row_energy_mj(layer) for layer in layers)

    def energy_metric(self, space: SearchSpace) -> AdditiveMetric:
        """Returns energies in millijoules of populations of a space; equal to `energy_mj` of each sub-network.

        Raises:
            TableError: A block of the space has no measured energy.
        """
        return AdditiveMetric(space, self._row_energy_mj)

    def memory_bytes(self, layers: Sequence[LayerSpec]) -> int:
        """Returns the least memory that one run needs in the table's precision and batch, by the plan.

        That is all weights, and the activations at the worst moment (`nas2edge.costs.peak_activations`). A runtime
        needs more for its own work.
        """
        device = self.device
        activations = max(map(peak_activations, layers)) * device.batch
        return (activations + sum(map(count_params, layers))) * device.value_bytes

    def _row_energy_mj(self, layer: LayerSpec) -> float:
        found = self._energy_by_key.get(layer.key)
        if found is None:
            raise TableError(
                f"the latency table {self.device.name!r} has no energy for {layer.key!r}; energy is never estimated. "
                "Measure it on a device with power sensors: nas2edge profile --pack"
            )
        return found

    @cached_property
    def _energy_by_key(self) -> dict[str, float]:
        return {row.layer.key: row.energy_mj for row in self.rows if row.energy_mj is not None}

    @cached_property
    def _by_key(self) -> dict[str, LayerLatency]:
        return {
            row.layer.key: LayerLatency(ms=row.p50, rel_sigma=row.rel_sigma, status=row.status) for row in self.rows
        }

    @cached_property
    def _roofline(self) -> Roofline | None:
        measured = [row for row in self.rows if row.status == MEASURED]
        return fit_roofline([row.layer for row in measured], [row.p50 for row in measured])

    def _find(self, layer: LayerSpec) -> LayerLatency | None:
        if (row := self._by_key.get(layer.key)) is not None:
            return row
        if self.law is not None:
            return LayerLatency(ms=self.law.layer_ms(layer), rel_sigma=self.law.rel_sigma, status=ESTIMATED)
        ms = None if self._roofline is None else self._roofline.layer_ms(layer)
        if self._roofline is None or ms is None:
            return None
        return LayerLatency(ms=ms, rel_sigma=self._roofline.rel_sigma, status=INTERPOLATED)

    def _check_answers(self, space: SearchSpace) -> None:
        from nas2edge.plan import unique_layers

        unknown = [layer for layer in unique_layers(space) if self._find(layer) is None]
        if unknown:
            raise self._missing_error(unknown)

    def _weights_mb(self, layer: LayerSpec) -> float:
        return count_params(layer) * self.device.value_bytes / 1e6

    def _sigma_ms(self, ms: Any, variance: Any, weights_mb: Any) -> Any:
        return np.sqrt(self.calibration.slope_of(weights_mb) ** 2 * variance + (self.rel_sigma * ms) ** 2)

    def _missing_error(self, layers: Sequence[LayerSpec]) -> TableError:
        keys = list(dict.fromkeys(layer.key for layer in layers))
        named = "; ".join(keys[:_NAMED_MISSING]) + ("; ..." if len(keys) > _NAMED_MISSING else "")
        return TableError(
            f"the latency table {self.device.name!r} has no row for {len(keys)} block{'s' * (len(keys) > 1)}, and too "
            f"few like it to interpolate: {named}. Measure the space's blocks on the device with: "
            "nas2edge profile --device cpu --space SPACE"
        )
