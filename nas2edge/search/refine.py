"""More samples where they count: sub-networks near the front that a predictor promises, until that front stands still.

A predictor that was fitted to a spread over the space is least sure at the end that matters, since few of the best are
among its samples. So its own fronts are searched, sub-networks along them are evaluated, and it is fitted anew.

>>> refined = refine(space, known, evaluate=evaluate, fit=fit, latency={}, budget=100, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas2edge.search.front import ParetoFront
from nas2edge.search.limits import Metric
from nas2edge.search.objective import Objective
from nas2edge.search.predictor import Predictor
from nas2edge.search.run import Evaluator, search
from nas2edge.space import SearchSpace, SubnetConfig

if TYPE_CHECKING:
    from nas2edge.latency.table import LatencyTable

BATCH = 24
STILL = 0.05
"""A front stands still when the accuracy that it promises for a cost moves by less than this, in points on average."""

_EVALUATIONS, _POPULATION = 4000, 60

Fit = Callable[[Mapping[SubnetConfig, float]], Predictor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """What refinement came to.

    Args:
        known: All accuracies, those from before included.
        moved: By how much the fronts moved in each round, in points on average.
        still: Whether they stood still at the end; False where the budget ended it.
    """

    known: Mapping[SubnetConfig, float]
    moved: tuple[float, ...]
    still: bool


def refine(
    space: SearchSpace,
    known: Mapping[SubnetConfig, float],
    *,
    evaluate: Evaluator,
    fit: Fit,
    latency: Mapping[str, LatencyTable | Metric],
    budget: int,
    seed: int,
) -> Refined:
    """Evaluates sub-networks along the fronts that a predictor promises, in rounds of `BATCH`.

    Args:
        known: Accuracies to begin with.
        evaluate: Top-1 in percent of sub-networks.
        fit: Fits a predictor to accuracies.
        latency: Latency tables by device; each gives a front of its own, beside those of MACs and parameters.
        budget: The greatest number of sub-networks to evaluate.
        seed: Of the searches.
    """
    costs = [Objective(metric=name, direction="min") for name in ("macs", "params")]
    costs += [Objective(metric="latency_ms", direction="min", device=name) for name in latency]
    accuracies, moved = dict(known), list[float]()
    fronts = _fronts(space, fit(accuracies), costs, latency, seed=seed)
    still = False
    while not still and len(accuracies) - len(known) < budget:
        most = min(BATCH, budget - (len(accuracies) - len(known)))
        batch = _along(fronts, accuracies, n=most)
        if not batch:
            return Refined(known=accuracies, moved=tuple(moved), still=True)
        accuracies |= zip(batch, evaluate(batch), strict=True)
        before, fronts = fronts, _fronts(space, fit(accuracies), costs, latency, seed=seed)
        moved.append(float(np.mean([_moved(a, b) for a, b in zip(before, fronts, strict=True)])))
        still = moved[-1] < STILL
    return Refined(known=accuracies, moved=tuple(moved), still=still)


def _fronts(
    space: SearchSpace,
    predictor: Predictor,
    costs: Sequence[Objective],
    latency: Mapping[str, LatencyTable | Metric],
    *,
    seed: int,
) -> list[ParetoFront]:
    accuracy = Objective(metric="accuracy", direction="max")
    return [
        search(
            space,
            accuracy=predictor,
            latency=latency if cost.device else None,
            objectives=[accuracy, cost],
            evaluations=_EVALUATIONS,
            population=_POPULATION,
            seed=seed,
        ).front
        for cost in costs
    ]


def _along(fronts: Sequence[ParetoFront], known: Mapping[SubnetConfig, float], *, n: int) -> list[SubnetConfig]:
    """Returns n sub-networks that are not known, in turn from each front, at even steps along it."""
    orders = []
    for front in fronts:
        missing = [candidate.subnet for candidate in front if candidate.subnet not in known]
        # Ends first, then the middle, then the middles of the halves: any beginning of the order is spread out.
        orders.append([missing[i] for i in _spread_out(len(missing))])
    batch: dict[SubnetConfig, None] = {}
    for rank in range(max(map(len, orders), default=0)):
        for order in orders:
            if rank < len(order) and len(batch) < n:
                batch.setdefault(order[rank])
    return list(batch)


def _spread_out(n: int) -> list[int]:
    parts = (np.linspace(0, n - 1, 2**k + 1).round().astype(int).tolist() for k in range(max(n, 1).bit_length() + 1))
    return list(dict.fromkeys(i for part in parts for i in part)) if n else []


def _moved(before: ParetoFront, after: ParetoFront) -> float:
    """Returns the mean difference of the accuracies that two fronts promise, over the costs that both reach."""
    cost = next(objective for objective in before.objectives if objective.metric != "accuracy")
    (x, y), (u, v) = (
        np.array(sorted((candidate.value(cost), candidate.accuracy) for candidate in front)).T
        for front in (before, after)
    )
    at = np.linspace(max(x[0], u[0]), min(x[-1], u[-1]), 64)
    steps = [b[np.searchsorted(a, at, side="right") - 1] for a, b in ((x, y), (u, v))]
    return float(np.abs(steps[0] - steps[1]).mean())
