"""Other ways to search, for comparison and for those used to them: random, aging and per-bin evolution.

All have the signature of `evolution.evolve`, which is the default and reaches more at every budget
(benchmarks/search.py).

>>> ALGORITHMS["aging"](problem, evaluations=10_000, population=200, rng=rng).scores
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from nas2edge.search.evolution import evolve, first_population, free_genes, offspring
from nas2edge.search.ledger import Batch, Evolved, Ledger, Problem, Vector
from nas2edge.search.pareto import Indices
from nas2edge.space import Codes

_CONTESTANTS = 10
_BINS = 32


class Algorithm(Protocol):
    """A search of a problem's front."""

    def __call__(
        self,
        problem: Problem,
        *,
        evaluations: int,
        population: int,
        rng: np.random.Generator,
        seeds: Codes | None = None,
    ) -> Evolved: ...


def search_randomly(
    problem: Problem, *, evaluations: int, population: int, rng: np.random.Generator, seeds: Codes | None = None
) -> Evolved:
    """Scores uniform draws, after the seeds."""
    ledger = Ledger(problem, evaluations=evaluations)
    if listed := ledger.list_space():
        return listed
    if seeds is not None:
        ledger.admit(ledger.seen.unseen(seeds))
    while ledger.is_open:
        ledger.admit(ledger.seen.unseen(problem.space.sample(population, rng)))
    return ledger.result()


def evolve_aging(
    problem: Problem, *, evaluations: int, population: int, rng: np.random.Generator, seeds: Codes | None = None
) -> Evolved:
    """Aging evolution (Real et al., 2019): the best of a few draws is mutated, and the oldest die, however good.

    For several objectives, each tournament draws weights anew and looks for the least weighted sum. A tenth of the
    population is renewed at a time.
    """
    ledger = Ledger(problem, evaluations=evaluations)
    if listed := ledger.list_space():
        return listed
    first = first_population(problem.space, population, rng=rng, seeds=seeds)
    alive = ledger.admit(ledger.seen.unseen(first))
    n = max(1, population // 10)
    while ledger.is_open and len(alive):
        parents = alive.codes[_tournaments(alive, n, rng)]
        children = problem.space.mutate(parents, rng, rate=1.0 / free_genes(problem.space))
        alive = alive.then(ledger.admit(ledger.seen.unseen(children)))
        alive = alive.take(np.arange(max(0, len(alive) - population), len(alive)))
    return ledger.result()


def evolve_bins(
    problem: Problem, *, evaluations: int, population: int, rng: np.random.Generator, seeds: Codes | None = None
) -> Evolved:
    """Per-bin evolution, as AttentiveNAS and AlphaNet search: the best of every bin of the cost are the parents.

    The first objective is to be best, the second is the cost. Half of the children are mutants, half cross two parents.
    """
    ledger = Ledger(problem, evaluations=evaluations)
    if listed := ledger.list_space():
        return listed
    first = first_population(problem.space, population, rng=rng, seeds=seeds)
    parents = _best_of_bins(ledger.admit(ledger.seen.unseen(first)))
    while ledger.is_open:
        order = rng.permutation(len(parents))  # so that no bin is preferred by the tournaments of `offspring`
        children = offspring(parents.codes[order], population, ledger=ledger, space=problem.space, rng=rng)
        if len(children) == 0:
            break
        parents = _best_of_bins(parents.then(ledger.admit(children)))
    return ledger.result()


ALGORITHMS: dict[str, Algorithm] = {
    "nsga2": evolve,
    "aging": evolve_aging,
    "random": search_randomly,
    "alphanet": evolve_bins,
}


def _tournaments(alive: Batch, n: int, rng: np.random.Generator) -> Indices:
    contestants = rng.integers(0, len(alive), size=(n, _CONTESTANTS))
    weights = rng.dirichlet(np.ones(alive.scores.shape[1]), size=n)
    merit = (_scaled(alive)[contestants] * weights[:, None, :]).sum(axis=2)
    # Whoever breaks a limit comes after all who keep them.
    violation = alive.violation[contestants]
    merit = np.where(violation > 0, 2.0 + violation, merit)
    return np.asarray(contestants[np.arange(n), merit.argmin(axis=1)])


def _scaled(alive: Batch) -> Vector:
    feasible = alive.violation <= 0
    if not feasible.any():
        return np.zeros_like(alive.scores)
    low, high = alive.scores[feasible].min(axis=0), alive.scores[feasible].max(axis=0)
    return np.asarray(np.nan_to_num((alive.scores - low) / np.where(high > low, high - low, 1.0)))


def _best_of_bins(batch: Batch) -> Batch:
    """Returns the best of each bin; while none keeps the limits, those that come closest."""
    feasible = np.flatnonzero(batch.violation <= 0)
    if len(feasible) == 0:
        return batch.take(np.argsort(batch.violation, kind="stable")[:_BINS])
    scores = batch.scores[feasible]
    cost = scores[:, min(1, scores.shape[1] - 1)]
    span = float(np.ptp(cost)) or 1.0
    bins = np.minimum(((cost - cost.min()) / span * _BINS).astype(np.int64), _BINS - 1)
    order = np.lexsort((cost, scores[:, 0], bins))
    firsts = np.unique(bins[order], return_index=True)[1]
    return batch.take(feasible[order[firsts]])
