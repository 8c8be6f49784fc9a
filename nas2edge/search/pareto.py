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


def rank_fronts(scores: Scores) -> Indices:
    """Returns the front that each row belongs to: 0 where no row dominates it, 1 where only rows of front 0 do, ...

    Two objectives take O(n log n) steps, more take O(n^2).
    """
    if len(scores) == 0:
        return np.zeros(0, dtype=np.int64)
    if scores.shape[1] == 1:
        return np.unique(scores[:, 0], return_inverse=True)[1].astype(np.int64)
    return _ranks_of_pairs(scores) if scores.shape[1] == 2 else _ranks_by_peeling(scores)


def crowding(scores: Scores, ranks: Indices) -> npt.NDArray[np.float64]:
    """Returns each row's crowding distance within its front (Deb et al., NSGA-II, section III B).

    The ends of a front are infinitely far; between them it is the gap between a row's neighbours, each objective as
    a share of the front's range, summed.
    """
    n = len(scores)
    distance = np.zeros(n)
    for column in scores.T:
        order = np.lexsort((column, ranks))
        values, fronts = column[order], ranks[order]
        starts = np.flatnonzero(np.diff(fronts, prepend=-1))
        sizes = np.diff(starts, append=n)
        span = np.repeat(values[starts + sizes - 1] - values[starts], sizes)
        gap = np.zeros(n)
        gap[1:-1] = values[2:] - values[:-2]
        gap = np.divide(gap, span, out=np.zeros(n), where=span > 0)
        gap[starts] = gap[starts + sizes - 1] = np.inf
        distance[order] += gap
    return distance


def is_on_front(scores: Scores) -> npt.NDArray[np.bool_]:
    """Returns which rows no other row dominates; of equal rows, all or none."""
    if len(scores) == 0:
        return np.zeros(0, dtype=np.bool_)
    if scores.shape[1] == 2:
        return _front_of_pairs(scores)
    # A row that dominates another has no greater sum, and at equal sums comes first in lexicographic order.
    order = np.lexsort((*scores.T[::-1], scores.sum(axis=1)))
    on_front = np.zeros(len(scores), dtype=np.bool_)
    while len(order):
        first, rest = scores[order[0]], scores[order[1:]]
        on_front[order[0]] = True
        dominated = (rest >= first).all(axis=1) & (rest > first).any(axis=1)
        order = order[1:][~dominated]
    return on_front


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


def _ranks_of_pairs(scores: Scores) -> Indices:
    # In lexicographic order, a front dominates a row just when the least second objective that it has shown so far is
    # not greater than the row's. These minima ascend from front to front, so the row's front is found by bisection.
    order = np.lexsort((scores[:, 1], scores[:, 0]))
    ordered = scores[order]
    repeated = np.concatenate([[False], (ordered[1:] == ordered[:-1]).all(axis=1)]).tolist()
    minima: list[float] = []
    ranks, rank = [], 0
    for second, same in zip(ordered[:, 1].tolist(), repeated, strict=True):
        if not same:
            rank = bisect_right(minima, second)
            minima[rank : rank + 1] = [second]
        ranks.append(rank)
    result = np.empty(len(scores), dtype=np.int64)
    result[order] = ranks
    return result


def _ranks_by_peeling(scores: Scores) -> Indices:
    no_worse = np.asarray((scores[:, None, :] <= scores[None, :, :]).all(axis=2))
    dominates = no_worse & ~no_worse.T
    dominators = dominates.sum(axis=0)
    ranks = np.full(len(scores), -1, dtype=np.int64)
    rank = 0
    while (ranks < 0).any():
        front = (ranks < 0) & (dominators == 0)
        ranks[front] = rank
        dominators -= dominates[front].sum(axis=0)
        rank += 1
    return ranks


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
