"""What every search algorithm shares: the problem, a budget of evaluations, what was met, and the front of it all.

An algorithm proposes populations; the ledger scores those that keep the limits, and remembers.

>>> ledger = Ledger(problem, evaluations=1000)
>>> batch = ledger.admit(problem.space.sample(100, rng))
>>> ledger.result(stop="budget").scores

Candidates that break a limit are never scored: an expensive score, such as the accuracy of a real network, is spent on
networks that could be chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from nas2edge.search.any_space import AnySpace
from nas2edge.search.pareto import Scores, hypervolume, is_on_front
from nas2edge.search.sample import ScoredSample
from nas2edge.space import Codes

Vector = npt.NDArray[np.float64]

Stop = Literal["budget", "exhausted", "stalled"]
"""Why a search ended: all evaluations were spent; every sub-network of the space was seen; or so few sub-networks meet
the limits that a hundred generations brought neither a new one nor one that comes closer."""

_PATIENCE = 100
_CONVERGENCE_POINTS = 40
_LEAST_ARCHIVE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What to search.

    Args:
        space: Where.
        objectives: Number of columns that `score` returns.
        score: Objectives of a population, all minimised: (n, genes) to (n, objectives). May be expensive.
        violation: By how much each member breaks the limits, 0 where it keeps them: (n, genes) to (n,). Is cheap.
    """

    space: AnySpace
    objectives: int
    score: Callable[[Codes], Scores]
    violation: Callable[[Codes], Vector]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """How the front grew.

    Args:
        evaluations: Sub-networks scored so far, ascending.
        hypervolume: Area that the front dominated by then, bounded by the worst scores ever seen on it.
    """

    evaluations: tuple[int, ...]
    hypervolume: tuple[float, ...]


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
        convergence: How the front grew; None unless there are two objectives.
        sample: Objectives of some of all that were scored: shape (n, objectives); none where it was not kept.
    """

    codes: Codes
    scores: Scores
    closest: Codes
    evaluations: int
    examined: int
    stop: Stop
    convergence: Convergence | None = None
    sample: Scores | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Candidates with what is known of them.

    Args:
        codes: The candidates: shape (n, genes).
        scores: Their objectives; NaN where a limit is broken.
        violation: By how much they break the limits.
    """

    codes: Codes
    scores: Scores
    violation: Vector

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Returns some of the candidates, in the order asked for."""
        return Batch(codes=self.codes[rows], scores=self.scores[rows], violation=self.violation[rows])

    def then(self, other: Batch) -> Batch:
        """Returns these candidates followed by others."""
        return Batch(
            codes=np.concatenate([self.codes, other.codes]),
            scores=np.concatenate([self.scores, other.scores]),
            violation=np.concatenate([self.violation, other.violation]),
        )


@final
class Ledger:
    """The account of one search.

    Args:
        problem: What is searched.
        evaluations: The greatest number of sub-networks to score.

    Attributes:
        seen: The sub-networks met so far.
        evaluations: Sub-networks scored so far.
        examined: Sub-networks whose limits were checked, scored or not.
    """

    def __init__(self, problem: Problem, *, evaluations: int) -> None:
        self._problem = problem
        self._budget = evaluations
        self._idle = 0
        self._nearest = math.inf
        self._closest: Codes = np.zeros((0, len(problem.space.genes)), dtype=np.int64)
        self._archive: list[tuple[int, Codes, Scores]] = []
        self._loose, self._compact_at = 0, _LEAST_ARCHIVE
        self._sample = ScoredSample(objectives=problem.objectives)
        self.seen = Seen(problem.space)
        self.evaluations = 0
        self.examined = 0

    @property
    def is_open(self) -> bool:
        """Whether evaluations are left, and the last generations brought something."""
        return self.evaluations < self._budget and self._idle <= _PATIENCE

    @property
    def stop(self) -> Stop:
        """Why a search that ends now does so."""
        if self.evaluations >= self._budget:
            return "budget"
        return "exhausted" if len(self.seen) >= self._problem.space.size else "stalled"

    def admit(self, codes: Codes) -> Batch:
        """Scores the candidates that keep the limits, as far as evaluations last, and returns all but those beyond."""
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
            self._remember(codes[feasible], scores[feasible])
        nearer = len(violation) > 0 and float(violation.min()) < self._nearest
        if nearer:
            self._nearest, self._closest = float(violation.min()), codes[[int(violation.argmin())]]
        self._idle = 0 if feasible.any() or nearer else self._idle + 1
        return Batch(codes=codes, scores=scores, violation=violation)

    def list_space(self) -> Evolved | None:
        """Scores the whole space, where it is no larger than the budget; else returns None."""
        if self._problem.space.size > self._budget:
            return None
        for block in every_code(self._problem.space):
            self.seen.unseen(block)
            self.admit(block)
        return self.result(stop="exhausted")

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Returns the whole account, from which `restore` goes on."""
        return {
            "counters": np.array([self.evaluations, self.examined, self._idle, self._loose, self._compact_at]),
            "nearest": np.array(self._nearest),
            "closest": self._closest,
            "archive_evaluations": np.array([evaluations for evaluations, _, _ in self._archive], dtype=np.int64),
            "archive_sizes": np.array([len(codes) for _, codes, _ in self._archive], dtype=np.int64),
            "archive_codes": np.concatenate([self._closest[:0], *(codes for _, codes, _ in self._archive)]),
            "archive_scores": np.concatenate(
                [np.zeros((0, self._problem.objectives)), *(scores for _, _, scores in self._archive)]
            ),
            "seen": self.seen.to_array(),
            **self._sample.to_arrays(),
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Goes on from an account."""
        counters = [int(value) for value in arrays["counters"]]
        self.evaluations, self.examined, self._idle, self._loose, self._compact_at = counters
        self._nearest, self._closest = float(arrays["nearest"]), arrays["closest"]
        ends = np.cumsum(arrays["archive_sizes"])[:-1]
        codes, scores = np.split(arrays["archive_codes"], ends), np.split(arrays["archive_scores"], ends)
        self._archive = list(zip(arrays["archive_evaluations"].tolist(), codes, scores, strict=True))
        self.seen.restore(arrays["seen"])
        self._sample.restore(arrays)

    def front(self) -> tuple[Codes, Scores]:
        """Returns the front of all that was scored so far."""
        codes = np.concatenate([self._closest[:0], *(codes for _, codes, _ in self._archive)])
        empty = np.zeros((0, self._problem.objectives))
        return front_of(codes, np.concatenate([empty, *(scores for _, _, scores in self._archive)]))

    def result(self, *, stop: Stop | None = None) -> Evolved:
        """Closes the account."""
        codes, scores = self.front()
        return Evolved(
            codes=codes,
            scores=scores,
            closest=self._closest,
            evaluations=self.evaluations,
            examined=self.examined,
            stop=stop or self.stop,
            convergence=convergence_of([(evaluations, scores) for evaluations, _, scores in self._archive]),
            sample=self._sample.scores(),
        )

    def _remember(self, codes: Codes, scores: Scores) -> None:
        self._sample.add(scores)
        on_front = is_on_front(scores)
        self._archive.append((self.evaluations, codes[on_front], scores[on_front]))
        self._loose += int(on_front.sum())
        if self._loose > self._compact_at and scores.shape[1] > 2:
            codes, scores = self.front()
            self._archive = [(self.evaluations, codes, scores)]
            self._loose, self._compact_at = len(codes), max(_LEAST_ARCHIVE, 2 * len(codes))


class Seen:
    """The sub-networks met so far, exactly: a row of a population becomes one whole number in a set."""

    def __init__(self, space: AnySpace) -> None:
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

    def to_array(self) -> npt.NDArray[Any]:
        """Returns all that were met: whole numbers, written out where they do not fit into 64 bits."""
        keys = sorted(self._keys)
        return np.array(list(map(str, keys))) if self._places.dtype == object else np.array(keys, dtype=np.int64)

    def restore(self, keys: npt.NDArray[Any]) -> None:
        """Goes on from what was met."""
        self._keys = set(map(int, keys.tolist()))

    def _keys_of(self, codes: Codes) -> list[int]:
        keys: list[int] = (codes @ self._places).tolist()
        return keys


def convergence_of(entries: Sequence[tuple[int, Scores]]) -> Convergence | None:
    """Returns how the front grew, at some forty steps; None unless there are two objectives.

    Args:
        entries: What was scored up to a number of evaluations, since the entry before: at least its front.
    """
    if not entries or entries[0][1].shape[1] != 2:
        return None
    reference = np.max([scores.max(axis=0) for _, scores in entries], axis=0)
    steps = np.unique(np.geomspace(1, len(entries), _CONVERGENCE_POINTS).round().astype(np.int64))
    so_far = entries[0][1][:0]
    evaluations, volumes, start = [], [], 0
    for step in steps.tolist():
        so_far = np.concatenate([so_far, *(scores for _, scores in entries[start:step])])
        so_far, start = so_far[is_on_front(so_far)], step
        evaluations.append(entries[step - 1][0])
        volumes.append(hypervolume(so_far, (float(reference[0]), float(reference[1]))))
    return Convergence(evaluations=tuple(evaluations), hypervolume=tuple(volumes))


def front_of(codes: Codes, scores: Scores) -> tuple[Codes, Scores]:
    """Returns the non-dominated rows in ascending order of scores; of equal scores, the least code."""
    on_front = is_on_front(scores)
    codes, scores = codes[on_front], scores[on_front]
    order = np.lexsort((*codes.T[::-1], *scores.T[::-1]))
    codes, scores = codes[order], scores[order]
    distinct = np.r_[True, (scores[1:] != scores[:-1]).any(axis=1)][: len(scores)]
    return codes[distinct], scores[distinct]


def every_code(space: AnySpace, *, block: int = 4096) -> Iterable[Codes]:
    """Yields all sub-networks of a space, in blocks."""
    for start in range(0, space.size, block):
        indices = np.arange(start, min(start + block, space.size))
        yield np.stack(np.unravel_index(indices, space.cardinalities), axis=1).astype(np.int64)
