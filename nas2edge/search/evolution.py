"""Multi-objective evolution over integer matrices: NSGA-II, with limits kept first and no network scored twice.

A generation is a handful of NumPy calls on a (population, genes) matrix; 100,000 candidates of the AttentiveNAS space
with two table look-up metrics take well under a second on one core (benchmarks/search.py). What differs from the
textbook (Deb et al., 2002): uniform crossover on half of the pairs, categorical mutation that always changes the value,
global de-duplication, and an archive that holds the front of everything scored.

Candidates that break a limit are ranked by how far, and are never scored: an expensive score, such as the accuracy of a
real network, is spent on networks that could be chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nas2edge.search.pareto import Indices, Scores, crowding, is_on_front, rank_fronts
from nas2edge.space import Codes, SearchSpace

Vector = npt.NDArray[np.float64]

Stop = Literal["budget", "exhausted", "stalled"]
"""Why a search ended: all evaluations were spent; every sub-network of the space was seen; or so few sub-networks meet
the limits that a hundred generations brought neither a new one nor one that comes closer."""

_MAX_ATTEMPTS = 10
_PATIENCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What to search.

    Args:
        space: Where.
        objectives: Number of columns that `score` returns.
        score: Objectives of a population, all minimised: (n, genes) to (n, objectives). May be expensive.
        violation: By how much each member breaks the limits, 0 where it keeps them: (n, genes) to (n,). Is cheap.
    """

    space: SearchSpace
    objectives: int
    score: Callable[[Codes], Scores]
    violation: Callable[[Codes], Vector]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evolved:
    """What a search found.

    Args:
        codes: The non-dominated sub-networks of all that were scored, in ascending order of `scores`; one for each
            distinct row of `scores`.
        scores: Their objectives.
        closest: The sub-network that breaks the limits least: shape (1, genes); of interest when `codes` is empty.
        evaluations: Sub-networks that were scored.
        examined: Sub-networks whose limits were checked, scored or not.
        stop: Why the search ended.
    """

    codes: Codes
    scores: Scores
    closest: Codes
    evaluations: int
    examined: int
    stop: Stop


def evolve(
    problem: Problem,
    *,
    evaluations: int,
    population: int,
    rng: np.random.Generator,
    seeds: Codes | None = None,
) -> Evolved:
    """Searches the front of a problem by evolution; a space no larger than the budget is listed instead, so exactly.

    Args:
        evaluations: The greatest number of sub-networks to score.
        population: Sub-networks kept from generation to generation.
        rng: The only source of randomness: equal states give equal results.
        seeds: Sub-networks to start from, beside a spread over the whole space.
    """
    run = _Run(problem, evaluations=evaluations, population=population, rng=rng)
    if problem.space.size <= evaluations:
        for block in _every_code(problem.space):
            run.admit(block)
        return run.result(stop="exhausted")
    first = spread(problem.space, population, rng)
    run.admit(run.seen.unseen(first if seeds is None else np.vstack([seeds, first])))
    while run.evaluations < evaluations:
        children = run.offspring()
        if len(children) == 0 or run.idle > _PATIENCE:
            return run.result(stop="exhausted" if len(run.seen) >= problem.space.size else "stalled")
        run.admit(children)
    return run.result(stop="budget")


def spread(space: SearchSpace, n: int, rng: np.random.Generator) -> Codes:
    """Draws members from the smallest to the largest of the space, at even steps: shape (n, genes).

    Uniform draws crowd at the middle of every additive cost (of AttentiveNAS's networks, one in a thousand is below
    300 MMACs), so each row here takes its genes from the smallest or largest member with a probability that falls from
    1 to 0 and rises to 1 again.
    """
    pull = np.linspace(-1.0, 1.0, n)[:, None]
    codes = space.sample(n, rng)
    ends = np.where(pull < 0, 0, space.cardinalities - 1)
    return np.where(rng.random(codes.shape) < np.abs(pull), ends, codes)


def breed(parents: Codes, n: int, space: SearchSpace, rng: np.random.Generator, *, mutations: float = 1.0) -> Codes:
    """Makes n children of parents that are ordered best first: tournament, crossover on half of the pairs, mutation.

    Args:
        mutations: Genes of a child that change, on average.
    """
    # Rows are ordered, so that the better of two contestants is the one with the lower index.
    contestants = rng.integers(0, len(parents), size=(2, 2, n))
    a, b = parents[contestants[0].min(axis=0)], parents[contestants[1].min(axis=0)]
    crossed = space.crossover(a, b, rng)
    children = np.where(rng.random((n, 1)) < 0.5, crossed, a)
    free_genes = max(1, int((space.cardinalities > 1).sum()))
    return space.mutate(children, rng, rate=min(1.0, mutations / free_genes))


class Seen:
    """The sub-networks met so far, exactly: a row of a population becomes one whole number in a set."""

    def __init__(self, space: SearchSpace) -> None:
        places = [math.prod(space.cardinalities[i + 1 :].tolist()) for i in range(len(space.genes))]
        # Beyond 64 bits, Python's own integers.
        self._places = np.array(places, dtype=np.int64 if space.size < 2**63 else object)
        self._keys: set[int] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def unseen(self, codes: Codes, *, limit: int | None = None) -> Codes:
        """Returns the rows not met before, each once, at most `limit` of them; from now on these are met."""
        keep: list[int] = []
        for i, key in enumerate(self._keys_of(codes)):
            if key not in self._keys:
                if len(keep) == limit:
                    break
                self._keys.add(key)
                keep.append(i)
        return codes[keep]

    def is_new(self, codes: Codes) -> npt.NDArray[np.bool_]:
        """Returns which rows were not met before, and leaves them so."""
        return np.array([key not in self._keys for key in self._keys_of(codes)], dtype=np.bool_)

    def _keys_of(self, codes: Codes) -> list[int]:
        keys: list[int] = (codes @ self._places).tolist()
        return keys


class _Run:
    """The state of one search: the population, ordered best first, and the archive of what may be on the front."""

    def __init__(self, problem: Problem, *, evaluations: int, population: int, rng: np.random.Generator) -> None:
        self._problem = problem
        self._budget = evaluations
        self._population = population
        self._rng = rng
        self._codes: Codes = np.zeros((0, len(problem.space.genes)), dtype=np.int64)
        self._scores: Scores = np.zeros((0, problem.objectives))
        self._violation: Vector = np.zeros(0)
        self._archive: list[tuple[Codes, Scores]] = []
        self.seen = Seen(problem.space)
        self.evaluations = 0
        self.examined = 0
        self.idle = 0

    def admit(self, codes: Codes) -> None:
        """Scores new candidates that keep the limits, and lets the best of old and new survive."""
        violation = self._problem.violation(codes)
        self.examined += len(codes)
        spent = np.cumsum(violation <= 0) + self.evaluations
        affordable = (violation > 0) | (spent <= self._budget)
        codes, violation = codes[affordable], violation[affordable]
        feasible = violation <= 0
        scores = np.full((len(codes), self._problem.objectives), np.nan)
        if feasible.any():
            scores[feasible] = self._problem.score(codes[feasible])
            self.evaluations += int(feasible.sum())
        nearer = len(violation) > 0 and (len(self._codes) == 0 or violation.min() < self._violation[0])
        self.idle = 0 if feasible.any() or nearer else self.idle + 1
        n_old = len(self._codes)
        codes = np.vstack([self._codes, codes])
        scores = np.vstack([self._scores, scores])
        violation = np.concatenate([self._violation, violation])
        order, first_front = _order(scores, violation, enough=self._population)
        fresh = first_front[first_front >= n_old]
        self._archive.append((codes[fresh], scores[fresh]))
        survivors = order[: self._population]
        self._codes, self._scores, self._violation = codes[survivors], scores[survivors], violation[survivors]

    def offspring(self) -> Codes:
        """Returns up to a population of candidates never met before; none when they cannot be found."""
        n, fresh = self._population, self._codes[:0]
        for attempt in range(_MAX_ATTEMPTS):
            # Half as many again, since some repeat what was met; a converged population needs wider and wider steps.
            children = breed(self._codes, n + n // 2, self._problem.space, self._rng, mutations=2.0**attempt)
            fresh = np.vstack([fresh, self.seen.unseen(children, limit=n - len(fresh))])
            if 2 * len(fresh) >= n:
                break
        return fresh

    def result(self, *, stop: Stop) -> Evolved:
        codes = np.vstack([codes for codes, _ in self._archive])
        scores = np.vstack([scores for _, scores in self._archive])
        codes, scores = front_of(codes, scores)
        return Evolved(
            codes=codes,
            scores=scores,
            closest=self._codes[:1],
            evaluations=self.evaluations,
            examined=self.examined,
            stop=stop,
        )


def front_of(codes: Codes, scores: Scores) -> tuple[Codes, Scores]:
    """Returns the non-dominated rows in ascending order of scores; of equal scores, the least code."""
    on_front = is_on_front(scores)
    codes, scores = codes[on_front], scores[on_front]
    order = np.lexsort((*codes.T[::-1], *scores.T[::-1]))
    codes, scores = codes[order], scores[order]
    distinct = np.r_[True, (scores[1:] != scores[:-1]).any(axis=1)][: len(scores)]
    return codes[distinct], scores[distinct]


def _order(scores: Scores, violation: Vector, *, enough: int) -> tuple[Indices, Indices]:
    """Returns all rows, best first (limits, then front, then crowding), and the rows of the first front."""
    feasible = np.flatnonzero(violation <= 0)
    broken = np.flatnonzero(violation > 0)
    ranks = rank_fronts(scores[feasible], enough=enough)
    inner = np.lexsort((-crowding(scores[feasible], ranks), ranks))
    order = np.concatenate([feasible[inner], broken[np.argsort(violation[broken], kind="stable")]])
    return order, feasible[ranks == 0]


def _every_code(space: SearchSpace, *, block: int = 4096) -> Iterable[Codes]:
    for start in range(0, space.size, block):
        indices = np.arange(start, min(start + block, space.size))
        yield np.stack(np.unravel_index(indices, space.cardinalities), axis=1).astype(np.int64)
