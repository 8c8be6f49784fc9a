"""Multi-objective evolution over integer matrices: NSGA-II, with limits kept first and no network scored twice.

A generation is a handful of NumPy calls on a (population, genes) matrix; 100,000 candidates of the AttentiveNAS space
with two table look-up metrics take half a second on one core (benchmarks/search.py). What differs from the textbook
(Deb et al., 2002): uniform crossover on half of the pairs, categorical mutation that always changes the value, global
de-duplication, and an archive that holds the front of everything scored.

Candidates that break a limit are ranked by how far.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from nas2edge.errors import InputError
from nas2edge.search.any_space import AnySpace
from nas2edge.search.checkpoint import Arrays, Checkpoint, restore, state_of
from nas2edge.search.ledger import Batch, Evolved, Ledger, Problem
from nas2edge.search.pareto import Indices, Scores, crowding, rank_fronts
from nas2edge.space import Codes

_MAX_ATTEMPTS = 10


def evolve(
    problem: Problem,
    *,
    evaluations: int,
    population: int,
    rng: np.random.Generator,
    seeds: Codes | None = None,
    checkpoint: Checkpoint | None = None,
) -> Evolved:
    """Searches the front of a problem by evolution; a space no larger than the budget is listed instead, so exactly.

    Args:
        evaluations: The greatest number of sub-networks to score.
        population: Sub-networks kept from generation to generation.
        rng: The only source of randomness: equal states give equal results.
        seeds: Sub-networks to start from, beside a spread over the whole space.
        checkpoint: Where the state is kept; if it is there, the search goes on from it, to the same result.
    """
    ledger = Ledger(problem, evaluations=evaluations)
    if listed := ledger.list_space():
        return listed
    kept = checkpoint.load() if checkpoint else None
    if kept is None:
        first = first_population(problem.space, population, rng=rng, seeds=seeds)
        alive = ledger.admit(ledger.seen.unseen(first))
        alive = alive.take(best_first(alive)[:population])
    else:
        alive = Batch(codes=kept["codes"], scores=kept["scores"], violation=kept["violation"])
        feasible = alive.violation <= 0
        check_kept(problem, alive.codes[feasible], alive.scores[feasible])
        ledger.restore(kept)
        restore(rng, kept["rng"])
    while ledger.is_open:
        if checkpoint:
            checkpoint.keep(partial(_state, alive, ledger, rng))
        children = offspring(alive.codes, population, ledger=ledger, space=problem.space, rng=rng)
        if len(children) == 0:
            break
        alive = alive.then(ledger.admit(children))
        alive = alive.take(best_first(alive, enough=population)[:population])
    return ledger.result()


def check_kept(problem: Problem, codes: Codes, scores: Scores) -> None:
    """Checks that one member is still worth what it was: the accuracy and the tables are no part of the identity.

    Raises:
        InputError: It is not.
    """
    if len(codes) and not np.array_equal(problem.score(codes[:1]), scores[:1]):
        raise InputError(
            "a sub-network of the search's state now has other scores than it had: the accuracy or a latency table is "
            "another; remove the file to start anew"
        )


def _state(alive: Batch, ledger: Ledger, rng: np.random.Generator) -> Arrays:
    population = {"codes": alive.codes, "scores": alive.scores, "violation": alive.violation}
    return {**population, **ledger.to_arrays(), "rng": state_of(rng)}


def first_population(space: AnySpace, n: int, *, rng: np.random.Generator, seeds: Codes | None) -> Codes:
    """Returns the seeds, and a spread of n over the whole space."""
    first = spread(space, n, rng)
    return first if seeds is None else np.vstack([seeds, first])


def spread(space: AnySpace, n: int, rng: np.random.Generator) -> Codes:
    """Draws members from the smallest to the largest of the space, at even steps: shape (n, genes).

    Uniform draws crowd at the middle of every additive cost (of AttentiveNAS's networks, one in a thousand is below
    300 MMACs), so each row here takes its genes from the smallest or largest member with a probability that falls from
    1 to 0 and rises to 1 again.
    """
    pull = np.linspace(-1.0, 1.0, n)[:, None]
    codes = space.sample(n, rng)
    ends = np.where(pull < 0, 0, space.cardinalities - 1)
    return np.where(rng.random(codes.shape) < np.abs(pull), ends, codes)


def offspring(
    parents: Codes, n: int, *, ledger: Ledger, space: AnySpace, rng: np.random.Generator, crossed: float = 0.5
) -> Codes:
    """Returns up to n children never met before, of parents that are ordered best first; none if none can be found.

    Args:
        crossed: Share of the pairs that cross.
    """
    fresh = parents[:0]
    for attempt in range(_MAX_ATTEMPTS):
        # A few more, since some repeat what was met; a converged population needs wider and wider steps.
        children = breed(parents, n + n // 4, space, rng, mutations=2.0**attempt, crossed=crossed)
        fresh = np.vstack([fresh, ledger.seen.unseen(children, limit=n - len(fresh))])
        if 2 * len(fresh) >= n:
            break
    return fresh


def breed(
    parents: Codes,
    n: int,
    space: AnySpace,
    rng: np.random.Generator,
    *,
    mutations: float = 1.0,
    crossed: float = 0.5,
) -> Codes:
    """Makes n children of parents that are ordered best first: tournament, crossover, mutation.

    Args:
        mutations: Genes of a child that change, on average.
        crossed: Share of the pairs that cross.
    """
    # Rows are ordered, so that the better of two contestants is the one with the lower index.
    contestants = rng.integers(0, len(parents), size=(2, 2, n))
    a, b = parents[contestants[0].min(axis=0)], parents[contestants[1].min(axis=0)]
    children = np.where(rng.random((n, 1)) < crossed, space.crossover(a, b, rng), a)
    return space.mutate(children, rng, rate=min(1.0, mutations / free_genes(space)))


def free_genes(space: AnySpace) -> int:
    """Returns the number of genes that have a choice, at least 1."""
    return max(1, int((space.cardinalities > 1).sum()))


def best_first(batch: Batch, *, enough: int | None = None) -> Indices:
    """Returns all rows, best first: limits, then front, then crowding.

    Args:
        enough: Once so many rows are in order, the order of the others may be less exact.
    """
    feasible = np.flatnonzero(batch.violation <= 0)
    broken = np.flatnonzero(batch.violation > 0)
    scores = batch.scores[feasible]
    ranks = rank_fronts(scores, enough=enough)
    inner = np.lexsort((-crowding(scores, ranks), ranks))
    return np.concatenate([feasible[inner], broken[np.argsort(batch.violation[broken], kind="stable")]])
