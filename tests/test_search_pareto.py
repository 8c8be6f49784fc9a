"""Fronts, crowding and hypervolume against brute force and against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas2edge.search.pareto import crowding, hypervolume, is_on_front, rank_fronts

Row = list[int]

grids = st.integers(1, 4).flatmap(
    lambda m: st.lists(st.lists(st.integers(0, 4), min_size=m, max_size=m), min_size=1, max_size=40)
)


def _dominates(a: Row, b: Row) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def _brute_ranks(rows: list[Row]) -> list[int]:
    ranks: dict[int, int] = {}
    rank = 0
    while len(ranks) < len(rows):
        left = [i for i in range(len(rows)) if i not in ranks]
        front = [i for i in left if not any(_dominates(rows[j], rows[i]) for j in left)]
        ranks |= dict.fromkeys(front, rank)
        rank += 1
    return [ranks[i] for i in range(len(rows))]


@given(grids)
@settings(max_examples=150, deadline=None)
def test_ranks_and_front_agree_with_brute_force(rows: list[Row]) -> None:
    expected = _brute_ranks(rows)

    assert rank_fronts(np.array(rows, dtype=float)).tolist() == expected
    assert is_on_front(np.array(rows, dtype=float)).tolist() == [rank == 0 for rank in expected]


@given(grids, st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_with_enough_ranked_the_others_come_after(rows: list[Row], enough: int) -> None:
    expected = np.array(_brute_ranks(rows))

    ranks = rank_fronts(np.array(rows, dtype=float), enough=enough)

    assert np.array_equal(ranks, np.minimum(expected, ranks.max()))
    assert (ranks < ranks.max()).sum() >= min(enough, len(rows)) or np.array_equal(ranks, expected)


def test_many_fronts_are_ranked_alike() -> None:
    scores = np.random.default_rng(0).random((300, 1)) + np.random.default_rng(1).random((300, 2)) / 100

    assert rank_fronts(scores).tolist() == _brute_ranks(scores.tolist())
    assert rank_fronts(scores).max() > 40


@pytest.mark.parametrize("m", [1, 2, 3])
def test_no_rows_have_no_ranks(m: int) -> None:
    empty = np.zeros((0, m))

    assert rank_fronts(empty).shape == is_on_front(empty).shape == (0,)


def test_crowding_is_the_normalised_gap_between_neighbours_of_the_same_front() -> None:
    front = np.array([[0.0, 10.0], [1.0, 4.0], [3.0, 2.0], [4.0, 0.0]])
    behind = np.array([[9.0, 9.0]])

    distance = crowding(np.vstack([front, behind]), np.array([0, 0, 0, 0, 1]))

    assert distance.tolist() == [np.inf, 3 / 4 + 8 / 10, 3 / 4 + 4 / 10, np.inf, np.inf]


def test_crowding_of_a_front_without_extent_has_no_division_by_zero() -> None:
    scores = np.ones((4, 2))

    distance = crowding(scores, rank_fronts(scores))

    assert not np.isnan(distance).any()


def test_hypervolume_by_hand() -> None:
    # Against (4, 4): 1x1 from (3, 1)... summed as strips: (4-1)*(4-3) + (4-2)*(3-2) + (4-3)*(2-1) = 6.
    scores = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [3.0, 3.0], [5.0, 0.0]])

    assert hypervolume(scores, (4.0, 4.0)) == 6.0
    assert hypervolume(scores, (1.0, 1.0)) == 0.0
    assert hypervolume(np.repeat(scores, 2, axis=0), (4.0, 4.0)) == 6.0
