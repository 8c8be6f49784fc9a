"""What a search asks of a latency table: latency, its standard error, an upper bound, the share that was measured.

>>> metrics = table_metrics(table, space)
>>> metrics.latency(codes), metrics.sigma(codes)
>>> metrics.sigma.upper(1.28).minimum().value  # the least latency that holds with 90 % confidence
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from nas2edge.additive import AdditiveMetric
from nas2edge.latency.table import ESTIMATED, MEASURED, LatencyTable
from nas2edge.pieces import Array, Extreme
from nas2edge.plan import LayerSpec
from nas2edge.space import Codes, SearchSpace

Metric = Callable[[Codes], Array]

_MAX_CORNERS = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableMetrics:
    """A table's answers for populations of one space.

    Args:
        latency: Milliseconds; an `AdditiveMetric` unless the table's cache term makes it none.
        sigma: Its standard error; a `SigmaMetric` where the latency is additive.
        share: Share of the latency that comes from measured rows.
    """

    latency: Metric
    sigma: Metric
    share: Metric


def table_metrics(table: LatencyTable, space: SearchSpace) -> TableMetrics:
    """Returns a table's metrics.

    Raises:
        TableError: Blocks of the space have no row and nothing to estimate them from; names them.
    """
    latency = table.metric(space)
    if not isinstance(latency, AdditiveMetric):
        return TableMetrics(latency=latency, sigma=table.sigma_metric(space), share=_share(table, space))

    slope = table.slope(space)

    def variance_of(layer: LayerSpec) -> float:
        row = table.row(layer)
        return (slope * row.ms * row.rel_sigma) ** 2

    sigma = SigmaMetric(latency, AdditiveMetric(space, variance_of), rel_sigma=table.rel_sigma)
    return TableMetrics(latency=latency, sigma=sigma, share=_share(table, space))


@final
class SigmaMetric:
    """Standard errors of latencies: the layers' own, independent ones, and one that all share.

    Args:
        latency: The latency.
        variance: Sum of the layers' squared errors.
        rel_sigma: The shared error, as a share of the latency.
    """

    def __init__(self, latency: AdditiveMetric, variance: AdditiveMetric, *, rel_sigma: float) -> None:
        self.latency, self.variance, self.rel_sigma = latency, variance, rel_sigma

    def __call__(self, codes: Codes) -> Array:
        """Returns the standard errors of a population: shape (n,)."""
        return np.asarray(np.sqrt(self.variance(codes) + (self.rel_sigma * self.latency(codes)) ** 2))

    def restricted(self, kept: Sequence[Sequence[int]]) -> SigmaMetric:
        """Returns the metric of a part of the space: of every gene, the indices of the choices that are kept."""
        return SigmaMetric(self.latency.restricted(kept), self.variance.restricted(kept), rel_sigma=self.rel_sigma)

    def upper(self, sigmas: float) -> UpperMetric:
        """Returns the latency plus a number of standard errors."""
        return UpperMetric(self, sigmas)


@final
class UpperMetric:
    """Latency plus a number of standard errors.

    It is no sum over layers, but it rises with two sums: the latency t and the variance v. Networks from which it is
    at most some value lie below a curve in the plane of t and v whose far side is convex (as long as the number of
    standard errors times the shared relative error is below 1), so the least value is at a corner of the convex hull of
    all networks' (t, v). The corners are minima of t + w v, which dynamic programming finds, for a few weights w.

    Args:
        sigma: The standard error, with its latency.
        sigmas: How many.
    """

    def __init__(self, sigma: SigmaMetric, sigmas: float) -> None:
        self._sigma, self._sigmas = sigma, sigmas

    def __call__(self, codes: Codes) -> Array:
        """Returns the upper bounds of a population: shape (n,)."""
        return np.asarray(self._sigma.latency(codes) + self._sigmas * self._sigma(codes))

    def minimum(self) -> Extreme:
        """Returns the least value over the whole space."""
        corners = np.vstack(self._corners())
        values = self(corners)
        i = int(values.argmin())
        return Extreme(value=float(values[i]), codes=corners[[i]])

    def maximum(self) -> Extreme:
        """Returns a value that none exceeds, which the largest network usually has, and the slowest network."""
        latency, variance = self._sigma.latency.maximum(), self._sigma.variance.maximum()
        sigma = np.sqrt(variance.value + (self._sigma.rel_sigma * latency.value) ** 2)
        return Extreme(value=float(latency.value + self._sigmas * sigma), codes=latency.codes)

    def restricted(self, kept: Sequence[Sequence[int]]) -> UpperMetric:
        """Returns the metric of a part of the space: of every gene, the indices of the choices that are kept."""
        return UpperMetric(self._sigma.restricted(kept), self._sigmas)

    def _corners(self) -> list[Codes]:
        latency, variance = self._sigma.latency, self._sigma.variance
        fast, sure = latency.minimum().codes, variance.minimum().codes
        corners, sides = [fast, sure], [(fast, sure)]
        while sides and len(corners) < _MAX_CORNERS:
            a, b = sides.pop()
            slower, surer = float(latency(b)[0] - latency(a)[0]), float(variance(a)[0] - variance(b)[0])
            if slower <= 0 or surer <= 0:
                continue
            tilted = latency.plus(variance, weight=slower / surer)
            least = tilted.minimum()
            if least.value < float(tilted(a)[0]) * (1 - 1e-12):
                corners.append(least.codes)
                sides += [(a, least.codes), (least.codes, b)]
        return corners


def _share(table: LatencyTable, space: SearchSpace) -> Metric:
    if table.kind == ESTIMATED:
        return lambda codes: np.zeros(len(codes))

    def measured_ms(layer: LayerSpec) -> float:
        row = table.row(layer)
        return row.ms if row.status == MEASURED else 0.0

    measured, total = AdditiveMetric(space, measured_ms), AdditiveMetric(space, lambda layer: table.row(layer).ms)
    return lambda codes: np.asarray(measured(codes) / total(codes))
