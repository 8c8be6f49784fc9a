"""Dominance among rows of an array: fronts, crowding, hypervolume. Everything is minimised.

A row dominates another when it is nowhere worse and somewhere better; equal rows do not dominate each other.

>>> rank_fronts(np.array([[1.0, 3.0], [2.0, 1.0], [2.0, 4.0]])).tolist()
[0, 0, 1]
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
"""Objectives of a population, all minimised: shape (n, objectives)."""

Indices = npt.NDArray[np.int64]

_BLOCK = 256
_MAX_PEELED = 32  # fronts that are taken off whole; beyond them, row by row is faster


def rank_fronts(scores: Scores, *, enough: int | None = None) -> Indices:
    """Returns the front that each row belongs to: 0 where no row dominates it, 1 where only rows of front 0 do, ...

    Two objectives take O(n log n) steps, more take O(n^2).

    Args:
        enough: Once so many rows are ranked, all others may share the next rank.
    """
    if len(scores) == 0:
        return np.zeros(0, dtype=np.int64)
    if scores.shape[1] == 1:
        return np.unique(scores[:, 0], return_inverse=True)[1].astype(np.int64)
    ranks = _ranks_of_pairs if scores.shape[1] == 2 else _ranks_by_peeling
    return ranks(scores, enough=len(scores) if enough is None else enough)


def crowding(scores: Scores, ranks: Indices) -> npt.NDArray[np.float64]:
    """Returns each row's crowding distance within its front (Deb et al., NSGA-II, section III B).

    The ends of a front are infinitely far; between them it is the gap between a row's neighbours, each objective as
    a share of the front's range, summed.
    """
    n = len(scores)
    distance = np.zeros(n)
    if n == 0:
        return distance
    # Along a front of two objectives the second falls as the first rises, so that one sorting serves both.
    pair = scores.shape[1] == 2
    order = np.lexsort((scores[:, 0], ranks))
    for k, column in enumerate(scores.T):
        if k and not pair:
            order = np.lexsort((column, ranks))
        values, fronts = column[order], ranks[order]
        ends = np.flatnonzero(fronts[1:] != fronts[:-1])
        starts, lasts = np.concatenate([[0], ends + 1]), np.concatenate([ends, [n - 1]])
        span = np.repeat(np.abs(values[lasts] - values[starts]), lasts - starts + 1)
        gap = np.zeros(n)
        gap[1:-1] = np.abs(values[2:] - values[:-2])
        gap /= np.where(span > 0, span, np.inf)
        gap[starts] = gap[lasts] = np.inf
        distance[order] += gap
    return distance


def is_on_front(scores: Scores) -> npt.NDArray[np.bool_]:
    """Returns which rows no other row dominates; of equal rows, all or none."""
    if len(scores) == 0:
        return np.zeros(0, dtype=np.bool_)
    if scores.shape[1] == 2:
        return _front_of_pairs(scores)
    return _front_by_blocks(scores)


def hypervolume(scores: Scores, reference: tuple[float, float]) -> float:
    """Returns the area that two-objective rows dominate, bounded by a reference point that is worse than they are.

    Rows that are not better than the reference in both objectives count for nothing.
    """
    inside = scores[(scores < np.asarray(reference)).all(axis=1)]
    front = np.unique(inside[is_on_front(inside)], axis=0)
    if len(front) == 0:
        return 0.0
    heights = np.r_[reference[1], front[:-1, 1]] - front[:, 1]
    return float(((reference[0] - front[:, 0]) * heights).sum())


def _ranks_of_pairs(scores: Scores, *, enough: int) -> Indices:
    # In lexicographic order, a row is on the front just when its second objective is below all before it.
    order = np.lexsort((scores[:, 1], scores[:, 0]))
    ordered = scores[order]
    repeats = np.concatenate([[False], (ordered[1:] == ordered[:-1]).all(axis=1)])
    distinct = np.flatnonzero(~repeats)
    second, left = ordered[distinct, 1], np.arange(len(distinct))
    inner = np.empty(len(distinct), dtype=np.int64)
    rank = 0
    while len(left) and len(distinct) - len(left) < enough and rank < _MAX_PEELED:
        values = second[left]
        on_front = np.ones(len(left), dtype=np.bool_)
        on_front[1:] = values[1:] < np.minimum.accumulate(values)[:-1]
        inner[left[on_front]] = rank
        left = left[~on_front]
        rank += 1
    inner[left] = rank if len(distinct) - len(left) >= enough else rank + _ranks_by_bisection(second[left])
    result = np.empty(len(scores), dtype=np.int64)
    result[order] = inner[np.cumsum(~repeats) - 1]
    return result


def _ranks_by_bisection(second: npt.NDArray[np.float64]) -> Indices:
    # A front dominates a row just when the least second objective that it has shown so far is not greater than the
    # row's. These minima ascend from front to front, so the row's front is found by bisection.
    minima: list[float] = []
    ranks = []
    for value in second.tolist():
        rank = bisect_right(minima, value)
        minima[rank : rank + 1] = [value]
        ranks.append(rank)
    return np.array(ranks, dtype=np.int64)


def _ranks_by_peeling(scores: Scores, *, enough: int) -> Indices:
    no_worse = _no_worse(scores, scores)
    dominates = no_worse & ~no_worse.T
    dominators = dominates.sum(axis=0)
    ranks = np.full(len(scores), -1, dtype=np.int64)
    rank = ranked = 0
    while ranked < min(enough, len(scores)):
        front = (ranks < 0) & (dominators == 0)
        ranks[front] = rank
        dominators -= dominates[front].sum(axis=0)
        ranked += int(front.sum())
        rank += 1
    ranks[ranks < 0] = rank
    return ranks


def _front_by_blocks(scores: Scores) -> npt.NDArray[np.bool_]:
    # In lexicographic order a row is dominated by rows before it alone, and these are no worse in the first column.
    order = np.lexsort(scores.T[::-1])
    ordered = scores[order]
    repeats = np.concatenate([[False], (ordered[1:] == ordered[:-1]).all(axis=1)])
    distinct = ordered[~repeats]
    others = distinct[:, 1:]
    on_front = np.ones(len(distinct), dtype=np.bool_)
    front = others[:0]
    for start in range(0, len(distinct), _BLOCK):
        block = others[start : start + _BLOCK]
        alive = np.flatnonzero(~_no_worse(front, block).any(axis=0))
        among = np.triu(_no_worse(block[alive], block[alive]), k=1).any(axis=0)
        on_front[start : start + len(block)] = False
        on_front[start + alive[~among]] = True
        front = np.concatenate([front, block[alive[~among]]])
    result = np.empty(len(scores), dtype=np.bool_)
    result[order] = on_front[np.cumsum(~repeats) - 1]
    return result


def _no_worse(a: Scores, b: Scores) -> npt.NDArray[np.bool_]:
    """Returns which rows of `a` are nowhere worse than which rows of `b`: shape (len(a), len(b))."""
    result = np.ones((len(a), len(b)), dtype=np.bool_)
    for x, y in zip(a.T, b.T, strict=True):
        result &= x[:, None] <= y[None, :]
    return result


def _front_of_pairs(scores: Scores) -> npt.NDArray[np.bool_]:
    order = np.lexsort((scores[:, 1], scores[:, 0]))
    first, second = scores[order, 0], scores[order, 1]
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
    better = second < best_before
    repeated = np.concatenate([[False], (first[1:] == first[:-1]) & (second[1:] == second[:-1])])
    start = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(order))))
    result = np.empty(len(scores), dtype=np.bool_)
    result[order] = better[start]
    return result
