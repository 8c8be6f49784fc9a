"""What one search was asked, with every metric by name: how populations are scored, and how far they break limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np

from nas2edge.additive import AdditiveMetric
from nas2edge.costs import count_macs, count_params, peak_activations
from nas2edge.errors import InputError, UnknownNameError
from nas2edge.peak import PeakMetric
from nas2edge.plan import LayerSpec
from nas2edge.search.any_space import AnySpace, PlanMetric, PlannedSpace
from nas2edge.search.devices import DeviceMetrics
from nas2edge.search.front import BYTES_PER_VALUE, Candidate
from nas2edge.search.guided import fit_kernel_ridge
from nas2edge.search.ledger import Problem, Vector
from nas2edge.search.limits import Bounded, Metric
from nas2edge.search.objective import Constraint, Objective
from nas2edge.search.pareto import Scores
from nas2edge.search.restrict import Part
from nas2edge.space import Codes

Entry = Objective | Constraint


@runtime_checkable
class WithUpper(Protocol):
    """A standard error that knows its upper bounds, with their extremes."""

    def upper(self, sigmas: float) -> Metric: ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that a search was asked.

    Args:
        place: Where: a part of a `SearchSpace`, whose metrics are of the whole space, or a space of another kind.
        accuracy: Top-1 in percent of a population.
        devices: Latencies, their errors and measured shares, and energies.
        constraints: Limits that all candidates keep.
        alternatives: Sets of further limits; a candidate keeps one of them at least.
        objectives: What is traded off.
    """

    place: Part | PlannedSpace
    accuracy: Metric
    devices: DeviceMetrics
    constraints: tuple[Constraint, ...]
    alternatives: tuple[tuple[Constraint, ...], ...]
    objectives: tuple[Objective, ...]
    _metrics: dict[Entry, Metric] = field(default_factory=dict)

    @property
    def space(self) -> AnySpace:
        """The space that codes belong to."""
        return self.place.inner if isinstance(self.place, Part) else self.place

    @property
    def limits(self) -> tuple[Constraint, ...]:
        """All constraints, those of alternatives included, each once."""
        return tuple(dict.fromkeys((*self.constraints, *(one for some in self.alternatives for one in some))))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All constraints and objectives."""
        return (*self.limits, *self.objectives)

    @property
    def choices(self) -> tuple[tuple[Constraint, ...], ...]:
        """The limits of each sub-network that is to be chosen."""
        return tuple((*self.constraints, *some) for some in self.alternatives) or (self.constraints,)

    def problem(self, choice: Sequence[Constraint] | None = None) -> Problem:
        """Returns the whole problem, or that of accuracy alone within the limits of one choice."""
        if choice is None:
            return Problem(
                space=self.space, objectives=len(self.objectives), score=self.scores, violation=self.violation
            )
        return Problem(
            space=self.space,
            objectives=1,
            score=lambda codes: self.scores(codes)[:, [self.accuracy_column]],
            violation=partial(self.excess, choice),
        )

    @property
    def accuracy_column(self) -> int:
        """Place of accuracy among the objectives."""
        return next(i for i, objective in enumerate(self.objectives) if objective.metric == "accuracy")

    def metric(self, entry: Entry) -> Metric:
        """Returns the metric of an objective or a constraint, as a function of populations.

        Raises:
            UnknownNameError: It names a device without a latency.
            InputError: It asks for a confidence where the latency has no standard error.
        """
        if entry not in self._metrics:
            self._metrics[entry] = self._make(entry)
        return self._metrics[entry]

    def scores(self, codes: Codes) -> Scores:
        """Returns all objectives, signed so that less is better: shape (n, objectives)."""
        return np.stack([self._column(objective, codes) for objective in self.objectives], axis=1)

    def violation(self, codes: Codes) -> Vector:
        """Returns by how much the limits are broken: those of all, and those of the alternative that is nearest."""
        total = self.excess(self.constraints, codes)
        if self.alternatives:
            total += np.min([self.excess(some, codes) for some in self.alternatives], axis=0)
        return total

    def excess(self, constraints: Sequence[Constraint], codes: Codes) -> Vector:
        """Returns by which shares of the limits values exceed them, summed: shape (n,)."""
        total = np.zeros(len(codes))
        for constraint in constraints:
            total += np.maximum(0.0, _values(self.metric(constraint), codes, constraint) / constraint.limit - 1.0)
        return total

    def fit(self, codes: Codes, scores: Scores) -> Callable[[Codes], Scores]:
        """Fits a model of accuracy; what is cheap stays exact. An instance of `guided.Fit`."""
        models: list[Metric] = []
        for objective, column in zip(self.objectives, scores.T, strict=True):
            if objective.metric == "accuracy":
                models.append(fit_kernel_ridge(self.space, codes, column))
            else:
                models.append(partial(self._column, objective))
        return lambda population: np.stack([model(population) for model in models], axis=1)

    def seeds(self) -> Codes | None:
        """Returns the sub-networks with the least cost of each kind that matters, where that is known."""
        codes: list[Codes] = []
        for entry in self.entries:
            metric = self.metric(entry)
            if entry.metric != "accuracy" and isinstance(metric, Bounded):
                codes.append(metric.minimum().codes)
        return np.vstack(codes) if codes else None

    def candidates(self, codes: Codes, scores: Scores) -> list[Candidate]:
        """Builds the candidates; their accuracies are in `scores`, so that none is evaluated twice."""
        macs, params, memory = (self._cost(name)(codes) for name in ("macs", "params", "memory_bytes"))
        latency, sigma, share, energy = (
            {name: self._placed(metric)(codes) for name, metric in metrics.items()}
            for metrics in (self.devices.latency, self.devices.sigma, self.devices.share, self.devices.energy)
        )
        return [
            Candidate(
                subnet=subnet,
                accuracy=float(-scores[i, self.accuracy_column]),
                macs=int(macs[i]),
                params=int(params[i]),
                memory_bytes=int(memory[i]),
                latency_ms={name: float(values[i]) for name, values in latency.items()},
                latency_sigma_ms={name: float(values[i]) for name, values in sigma.items()},
                measured_share={name: float(values[i]) for name, values in share.items()},
                energy_mj={name: float(values[i]) for name, values in energy.items()},
            )
            for i, subnet in enumerate(self.space.decode(codes))
        ]

    def _make(self, entry: Entry) -> Metric:
        if entry.metric == "accuracy":
            return self._placed(self.accuracy)
        if entry.device is None:
            return self._cost(entry.metric)
        if entry.metric == "energy_mj":
            return self._energy(entry.device)
        if entry.device not in self.devices.latency:
            raise UnknownNameError("device", entry.device, self.devices.latency)
        latency = self._placed(self.devices.latency[entry.device])
        sigmas = entry.sigmas if isinstance(entry, Constraint) else 0.0
        if not sigmas:
            return latency
        if entry.device not in self.devices.sigma:
            raise InputError(f"{entry.describe()}: the latency of {entry.device} states no error; leave confidence out")
        sigma = self._placed(self.devices.sigma[entry.device])
        if isinstance(sigma, WithUpper):
            return sigma.upper(sigmas)
        return lambda codes: np.asarray(latency(codes) + sigmas * sigma(codes))

    def _energy(self, device: str) -> Metric:
        if device in self.devices.energy:
            return self._placed(self.devices.energy[device])
        if device in self.devices.latency:
            raise InputError(f"no energy is known on {device}; give energy={{{device!r}: metric}}, or leave it out")
        raise UnknownNameError("device", device, self.devices.energy)

    def _placed(self, metric: Metric) -> Metric:
        """Turns a metric of the whole space into one of the part that is searched."""
        return self.place.metric(metric) if isinstance(self.place, Part) else metric

    def _cost(self, name: str) -> Metric:
        space = self.space
        values = {"macs": count_macs, "params": count_params, "size_bytes": _size_bytes}
        if isinstance(space, PlannedSpace):
            if name in values:
                return PlanMetric(space, lambda layers: sum(map(values[name], layers)))
            return PlanMetric(space, lambda layers: max(map(_memory_bytes, layers)))
        return AdditiveMetric(space, values[name]) if name in values else PeakMetric(space, _memory_bytes)

    def _column(self, objective: Objective, codes: Codes) -> Vector:
        return objective.sign * _values(self.metric(objective), codes, objective)


def _size_bytes(layer: LayerSpec) -> int:
    return BYTES_PER_VALUE * count_params(layer)


def _memory_bytes(layer: LayerSpec) -> int:
    return BYTES_PER_VALUE * peak_activations(layer)


def _values(metric: Metric, codes: Codes, entry: Entry) -> Vector:
    values = np.asarray(metric(codes), dtype=np.float64)
    if values.shape != (len(codes),):
        raise InputError(
            f"{entry.metric} of {len(codes)} sub-networks has shape {values.shape}; expected one value each"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{entry.describe()}: a sub-network has the value {values[~np.isfinite(values)][0]}")
    return values
