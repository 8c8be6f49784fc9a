"""Search for scores that cost seconds each: a model of what was scored chooses what to score next.

Rounds: fit a cheap model to everything scored so far, search the model's front by evolution (a few hundredths of a
second), score a batch spread along that front, repeat (the loop of LINAS, Cummings et al., 2022). All results are real
scores; the model only chooses. At equal evaluations the front is clearly better than that of evolution on the scores
themselves (benchmarks/search.py).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas2edge.search.any_space import AnySpace
from nas2edge.search.evolution import breed, evolve, spread
from nas2edge.search.ledger import Evolved, Problem, Seen, Vector, front_of
from nas2edge.search.pareto import Scores
from nas2edge.space import Codes

Fit = Callable[[Codes, Scores], Callable[[Codes], Scores]]
"""Takes what was scored, and the scores; returns a cheap estimate of the scores of any population."""

_INNER_EVALUATIONS = 3000
_INNER_POPULATION = 60
_DRAWS_PER_MEMBER = 20
_MAX_DRAWS = 50


def evolve_guided(
    problem: Problem,
    *,
    fit: Fit,
    evaluations: int,
    population: int,
    rng: np.random.Generator,
    seeds: Codes | None = None,
) -> Evolved:
    """Searches the front of a problem whose `score` is expensive.

    Args:
        fit: Makes the model.
        evaluations: The greatest number of sub-networks to score.
        population: Sub-networks scored in one round; the first round scores twice as many.
        rng: The only source of randomness.
        seeds: Sub-networks to score in the first round, where they keep the limits.
    """
    if problem.space.size <= evaluations:
        return evolve(problem, evaluations=evaluations, population=population, rng=rng)
    seen = Seen(problem.space)
    batch, closest, examined = _first_batch(problem, n=min(2 * population, evaluations), rng=rng, seeds=seeds)
    codes, scores = batch[:0], np.zeros((0, problem.objectives))
    while len(batch):
        seen.unseen(batch)
        codes, scores = np.vstack([codes, batch]), np.vstack([scores, problem.score(batch)])
        if len(codes) >= evaluations:
            break
        model = Problem(
            space=problem.space, objectives=problem.objectives, score=fit(codes, scores), violation=problem.violation
        )
        promised = evolve(
            model,
            evaluations=_INNER_EVALUATIONS,
            population=_INNER_POPULATION,
            rng=rng,
            seeds=front_of(codes, scores)[0],
        )
        examined += promised.examined
        batch = _next_batch(problem, seen, promised.codes, n=min(population, evaluations - len(codes)), rng=rng)
    front, front_scores = front_of(codes, scores)
    return Evolved(
        codes=front,
        scores=front_scores,
        closest=closest,
        evaluations=len(codes),
        examined=examined,
        stop="budget" if len(codes) >= evaluations else "stalled",
        sample=scores,
    )


def fit_kernel_ridge(space: AnySpace, codes: Codes, values: Vector) -> Callable[[Codes], Vector]:
    """Fits a smooth function of the genes to a few noisy values; returns it as a function of populations.

    Kernel ridge regression with a Gaussian kernel on genes scaled to [-1, 1], of width one per root of the number of
    genes. The ridge of 0.1 is the noise that validation on a few thousand images has beside the spread of accuracies.
    """
    mean, spread_of_values = values.mean(), values.std() or 1.0
    x = _scaled(space, codes)
    weights = np.linalg.solve(_kernel(x, x) + 0.1 * np.eye(len(x)), (values - mean) / spread_of_values)

    def predict(population: Codes) -> Vector:
        return np.asarray(mean + spread_of_values * (_kernel(_scaled(space, population), x) @ weights))

    return predict


def _scaled(space: AnySpace, codes: Codes) -> Scores:
    free = space.cardinalities > 1
    scaled = 2.0 * codes[:, free] / (space.cardinalities[free] - 1) - 1.0
    return np.asarray(scaled / np.sqrt(max(1, scaled.shape[1])))


def _kernel(a: Scores, b: Scores) -> Scores:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * (a @ b.T)
    return np.asarray(np.exp(-0.5 * np.maximum(squared, 0.0)))


def _first_batch(
    problem: Problem, *, n: int, rng: np.random.Generator, seeds: Codes | None
) -> tuple[Codes, Codes, int]:
    """Returns up to n sub-networks that keep the limits, the one that breaks them least, and how many were examined.

    Where a spread over the space holds too few, the closest ones breed until their children keep the limits.
    """
    drawn = spread(problem.space, _DRAWS_PER_MEMBER * n, rng)
    pool = drawn if seeds is None else np.vstack([seeds, drawn])
    violation = problem.violation(pool)
    examined = len(pool)
    for _ in range(_MAX_DRAWS):
        unique = np.sort(np.unique(pool, axis=0, return_index=True)[1])
        pool, violation = pool[unique], violation[unique]
        if (violation <= 0).sum() >= n:
            break
        order = np.argsort(violation, kind="stable")[: max(n, 10)]
        children = breed(pool[order], _DRAWS_PER_MEMBER * n, problem.space, rng)
        pool = np.vstack([pool, children])
        violation = np.concatenate([violation, problem.violation(children)])
        examined += len(children)
    closest = pool[[int(violation.argmin())]]
    return _evenly(pool[violation <= 0], n), closest, examined


def _next_batch(problem: Problem, seen: Seen, front: Codes, *, n: int, rng: np.random.Generator) -> Codes:
    """Returns up to n sub-networks that keep the limits and were not scored: along the front, then near it."""
    batch = _evenly(front[seen.is_new(front)], n)
    for _ in range(_MAX_DRAWS if len(front) else 0):
        if len(batch) == n:
            break
        children = breed(front, _DRAWS_PER_MEMBER * n, problem.space, rng)
        children = children[seen.is_new(children)]
        children = children[problem.violation(children) <= 0]
        pool = np.vstack([batch, children])
        batch = pool[np.sort(np.unique(pool, axis=0, return_index=True)[1])][:n]
    return batch


def _evenly(codes: Codes, n: int) -> Codes:
    """Returns n rows at even steps, with both ends; all when there are no more."""
    if len(codes) <= n:
        return codes
    return codes[np.unique(np.linspace(0, len(codes) - 1, n).round().astype(np.int64))]
