"""The search itself: constraints and objectives over a space become one front and one choice.

>>> result = search(
...     space,
...     accuracy=PublishedAccuracy(space),
...     latency={"jetson-orin-nano": table.metric(space)},
...     constraints=[Constraint(metric="latency_ms", limit=20.0, device="jetson-orin-nano")],
...     evaluations=50_000,
... )
>>> result.best.subnet
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from nas2edge.additive import AdditiveMetric
from nas2edge.costs import count_macs, count_params
from nas2edge.errors import InputError, UnknownNameError
from nas2edge.search.evolution import evolve
from nas2edge.search.front import Candidate, ParetoFront
from nas2edge.search.guided import evolve_guided, fit_kernel_ridge
from nas2edge.search.ledger import Problem, Stop, Vector
from nas2edge.search.limits import Bounded, Limit, Metric, check_limits, jointly_infeasible
from nas2edge.search.objective import Constraint, Objective
from nas2edge.search.pareto import Scores
from nas2edge.space import Codes, SearchSpace, SubnetConfig

DEFAULT_EVALUATIONS = 50_000
DEFAULT_POPULATION = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found.

    Args:
        best: The most accurate candidate that meets all constraints.
        front: All non-dominated candidates that meet them, in ascending order of the first objective.
        limits: Each constraint and whether it excludes anything.
        evaluations: Sub-networks whose accuracy was evaluated.
        examined: Sub-networks whose costs were looked up, these included.
        stop: "budget": all evaluations were spent; "exhausted": the whole space was seen, so the front is exact;
            "stalled": new sub-networks that meet the constraints could not be found.
        population: As given.
        seed: As given.
    """

    best: Candidate
    front: ParetoFront
    limits: tuple[Limit, ...]
    evaluations: int
    examined: int
    stop: Stop
    population: int
    seed: int


def search(
    space: SearchSpace,
    *,
    accuracy: Metric,
    latency: Mapping[str, Metric] | None = None,
    constraints: Sequence[Constraint] = (),
    objectives: Sequence[Objective] | None = None,
    evaluations: int = DEFAULT_EVALUATIONS,
    population: int = DEFAULT_POPULATION,
    seed: int = 0,
    guided: bool = False,
    latency_sigma: Mapping[str, Metric] | None = None,
    measured_share: Mapping[str, Metric] | None = None,
) -> SearchResult:
    """Searches a space for the sub-networks that are worth deploying.

    Costs are looked up first: a sub-network that breaks a constraint never costs an evaluation of accuracy.

    Args:
        accuracy: Top-1 in percent of a population.
        latency: Milliseconds of a population, by device. `AdditiveMetric`s also tell whether a limit can be met.
        constraints: Limits that the candidates keep.
        objectives: What to trade off, accuracy among it; by default accuracy against latency on every device, or
            against MACs without a device.
        evaluations: The greatest number of sub-networks whose accuracy is evaluated. A space no larger is listed.
        population: Sub-networks in a generation, or in a round when guided.
        seed: Equal seeds give equal results.
        guided: Whether accuracy is expensive (seconds each), so that a model should choose what to evaluate.
        latency_sigma: Standard error of the latency by device, for the candidates of the front.
        measured_share: Share of the latency from measured rows by device, for the candidates of the front.

    Raises:
        InfeasibleError: No sub-network meets a constraint, or none was found that meets all.
        InputError: A number is out of range, accuracy is no objective, or a metric has no value for a sub-network.
        UnknownNameError: A constraint or an objective names a device without a latency.
    """
    task = _Task(space=space, accuracy=accuracy, latency=latency or {}, constraints=tuple(constraints),
                 objectives=_objectives(objectives, latency or {}))  # fmt: skip
    _check(task, evaluations=evaluations, population=population)
    limits = check_limits(space, [(constraint, task.metric(constraint)) for constraint in task.constraints])
    problem = Problem(space=space, objectives=len(task.objectives), score=task.scores, violation=task.violation)
    rng = np.random.default_rng(seed)
    if guided:
        found = evolve_guided(
            problem, fit=task.fit, evaluations=evaluations, population=population, rng=rng, seeds=task.seeds()
        )
    else:
        found = evolve(problem, evaluations=evaluations, population=population, rng=rng, seeds=task.seeds())
    if len(found.codes) == 0:
        (closest,) = task.candidates(found.closest, np.full((1, len(task.objectives)), np.nan), {}, {})
        raise jointly_infeasible(space, task.constraints, closest, examined=found.examined)
    candidates = task.candidates(found.codes, found.scores, latency_sigma or {}, measured_share or {})
    return SearchResult(
        best=_best(candidates, task.objectives),
        front=ParetoFront(objectives=task.objectives).extend(candidates),
        limits=limits,
        evaluations=found.evaluations,
        examined=found.examined,
        stop=found.stop,
        population=population,
        seed=seed,
    )


def codes_from_evaluator(space: SearchSpace, evaluator: Callable[[Sequence[SubnetConfig]], Sequence[float]]) -> Metric:
    """Turns an evaluator of sub-networks into a metric of populations."""

    def evaluate(codes: Codes) -> Vector:
        return np.asarray(evaluator(space.decode(codes)), dtype=np.float64)

    return evaluate


@dataclass(frozen=True, kw_only=True)
class _Task:
    """All that a search was asked, with its metrics by name."""

    space: SearchSpace
    accuracy: Metric
    latency: Mapping[str, Metric]
    constraints: tuple[Constraint, ...]
    objectives: tuple[Objective, ...]
    _costs: dict[str, Metric] = field(default_factory=dict)

    @property
    def entries(self) -> tuple[Objective | Constraint, ...]:
        return (*self.constraints, *self.objectives)

    def metric(self, entry: Objective | Constraint) -> Metric:
        if entry.metric == "accuracy":
            return self.accuracy
        if entry.device is None:
            return self.cost(entry.metric)
        if entry.device not in self.latency:
            raise UnknownNameError("device", entry.device, self.latency)
        return self.latency[entry.device]

    def cost(self, name: str) -> Metric:
        # Summing a large space's table beforehand takes some 50 ms, so only what is asked for is summed.
        if name not in self._costs:
            self._costs[name] = AdditiveMetric(self.space, {"macs": count_macs, "params": count_params}[name])
        return self._costs[name]

    def scores(self, codes: Codes) -> Scores:
        return np.stack([self._column(objective, codes) for objective in self.objectives], axis=1)

    def violation(self, codes: Codes) -> Vector:
        total = np.zeros(len(codes))
        for constraint in self.constraints:
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
            if isinstance(metric, Bounded):
                codes.append(metric.minimum().codes)
        return np.vstack(codes) if codes else None

    def candidates(
        self, codes: Codes, scores: Scores, sigma: Mapping[str, Metric], share: Mapping[str, Metric]
    ) -> list[Candidate]:
        """Builds the candidates; their accuracies are in `scores`, so that none is evaluated twice."""
        accuracy = next(i for i, objective in enumerate(self.objectives) if objective.metric == "accuracy")
        macs, params = self.cost("macs")(codes), self.cost("params")(codes)
        by_device = [
            {name: metric(codes) for name, metric in metrics.items()} for metrics in (self.latency, sigma, share)
        ]
        return [
            Candidate(
                subnet=subnet,
                accuracy=float(-scores[i, accuracy]),
                macs=int(macs[i]),
                params=int(params[i]),
                latency_ms={name: float(values[i]) for name, values in by_device[0].items()},
                latency_sigma_ms={name: float(values[i]) for name, values in by_device[1].items()},
                measured_share={name: float(values[i]) for name, values in by_device[2].items()},
            )
            for i, subnet in enumerate(self.space.decode(codes))
        ]

    def _column(self, objective: Objective, codes: Codes) -> Vector:
        return objective.sign * _values(self.metric(objective), codes, objective)


def _objectives(given: Sequence[Objective] | None, latency: Mapping[str, Metric]) -> tuple[Objective, ...]:
    if given is not None:
        return tuple(given)
    costs = [Objective(metric="latency_ms", direction="min", device=name) for name in latency]
    return (
        Objective(metric="accuracy", direction="max"),
        *(costs or [Objective(metric="macs", direction="min")]),
    )


def _check(task: _Task, *, evaluations: int, population: int) -> None:
    if evaluations < 1:
        raise InputError(f"evaluations is {evaluations}; expected at least 1")
    if population < 2:
        raise InputError(f"population is {population}; expected at least 2")
    if [entry.direction for entry in task.objectives if entry.metric == "accuracy"] != ["max"]:
        raise InputError("the objectives lack accuracy (max), once; the best candidate is the most accurate one")
    for entry in task.entries:
        task.metric(entry)


def _values(metric: Metric, codes: Codes, entry: Objective | Constraint) -> Vector:
    values = np.asarray(metric(codes), dtype=np.float64)
    if values.shape != (len(codes),):
        raise InputError(
            f"{entry.metric} of {len(codes)} sub-networks has shape {values.shape}; expected one value each"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{entry.describe()}: a sub-network has the value {values[~np.isfinite(values)][0]}")
    return values


def _best(candidates: Sequence[Candidate], objectives: Sequence[Objective]) -> Candidate:
    others = [objective for objective in objectives if objective.metric != "accuracy"]
    return min(candidates, key=lambda c: (-c.accuracy, *(objective.sign * c.value(objective) for objective in others)))
