"""Search for scores that cost seconds each: a model of what was scored chooses what to score next.

Rounds: fit a cheap model to everything scored so far, search the model's front by evolution (a few hundredths of a
second), score a batch spread along that front, repeat (the loop of LINAS, Cummings et al., 2022). All results are real
scores; the model only chooses. At equal evaluations the front is clearly better than that of evolution on the scores
themselves (benchmarks/search.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from nas2edge.search.any_space import AnySpace
from nas2edge.search.checkpoint import Arrays, Checkpoint, restore, state_of
from nas2edge.search.evolution import breed, check_kept, evolve, spread
from nas2edge.search.ledger import Evolved, Problem, Seen, Vector, convergence_of, front_of
from nas2edge.search.pareto import Scores
from nas2edge.space import Codes

Fit = Callable[[Codes, Scores], Callable[[Codes], Scores]]
"""Takes what was scored, and the scores; returns a cheap estimate of the scores of any population."""

_INNER_EVALUATIONS = 3000
_INNER_POPULATION = 60
_DRAWS_PER_MEMBER = 20
_MAX_DRAWS = 50


@dataclass(slots=True, kw_only=True, eq=False)
class _State:
    """Where a guided search is.

    Args:
        batch: To be scored next; empty when nothing new was found.
        codes: What was scored.
        scores: Its scores.
        rounds: How many had been scored at the end of each round.
        closest: The sub-network that breaks the limits least.
        examined: Sub-networks whose limits were checked.
    """

    batch: Codes
    codes: Codes
    scores: Scores
    rounds: list[int]
    closest: Codes
    examined: int

    def to_arrays(self, rng: np.random.Generator) -> Arrays:
        counts = {"rounds": np.array(self.rounds, dtype=np.int64), "examined": np.array(self.examined)}
        arrays = {"batch": self.batch, "codes": self.codes, "scores": self.scores, "closest": self.closest}
        return {**arrays, **counts, "rng": state_of(rng)}

    @classmethod
    def of_arrays(cls, kept: Arrays) -> _State:
        arrays = {name: kept[name] for name in ("batch", "codes", "scores", "closest")}
        return cls(**arrays, rounds=kept["rounds"].tolist(), examined=int(kept["examined"]))

    def found(self, *, budget: int) -> Evolved:
        front, front_scores = front_of(self.codes, self.scores)
        starts = [0, *self.rounds][: len(self.rounds)]
        return Evolved(
            codes=front,
            scores=front_scores,
            closest=self.closest,
            evaluations=len(self.codes),
            examined=self.examined,
            stop="budget" if len(self.codes) >= budget else "stalled",
            convergence=convergence_of([(b, self.scores[a:b]) for a, b in zip(starts, self.rounds, strict=True)]),
            sample=self.scores,
        )


def evolve_guided(
    problem: Problem,
    *,
    fit: Fit,
    evaluations: int,
    population: int,
    rng: np.random.Generator,
    seeds: Codes | None = None,
    checkpoint: Checkpoint | None = None,
) -> Evolved:
    """Searches the front of a problem whose `score` is expensive.

    Args:
        fit: Makes the model.
        evaluations: The greatest number of sub-networks to score.
        population: Sub-networks scored in one round; the first round scores twice as many.
        rng: The only source of randomness.
        seeds: Sub-networks to score in the first round, where they keep the limits.
        checkpoint: Where the state is kept after a round; if it is there, the search goes on from it.
    """
    if problem.space.size <= evaluations:
        return evolve(problem, evaluations=evaluations, population=population, rng=rng)
    kept = checkpoint.load() if checkpoint else None
    if kept is None:
        state = _begin(problem, n=min(2 * population, evaluations), rng=rng, seeds=seeds)
    else:
        state = _State.of_arrays(kept)
        restore(rng, kept["rng"])
        check_kept(problem, state.codes, state.scores)
    while len(state.batch):
        if checkpoint:
            checkpoint.keep(partial(state.to_arrays, rng))
        state.codes = np.vstack([state.codes, state.batch])
        state.scores = np.vstack([state.scores, problem.score(state.batch)])
        state.rounds.append(len(state.codes))
        if len(state.codes) >= evaluations:
            break
        promised = _promised(problem, fit, state, rng)
        state.examined += promised.examined
        seen = Seen(problem.space)
        seen.unseen(state.codes)
        n = min(population, evaluations - len(state.codes))
        state.batch = _next_batch(problem, seen, promised.codes, n=n, rng=rng)
    return state.found(budget=evaluations)


def _begin(problem: Problem, *, n: int, rng: np.random.Generator, seeds: Codes | None) -> _State:
    batch, closest, examined = _first_batch(problem, n=n, rng=rng, seeds=seeds)
    scores = np.zeros((0, problem.objectives))
    return _State(batch=batch, codes=batch[:0], scores=scores, rounds=[], closest=closest, examined=examined)


def _promised(problem: Problem, fit: Fit, state: _State, rng: np.random.Generator) -> Evolved:
    """Returns the front of a model of what was scored so far."""
    model = Problem(
        space=problem.space,
        objectives=problem.objectives,
        score=fit(state.codes, state.scores),
        violation=problem.violation,
    )
    seeds = front_of(state.codes, state.scores)[0]
    return evolve(model, evaluations=_INNER_EVALUATIONS, population=_INNER_POPULATION, rng=rng, seeds=seeds)


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
