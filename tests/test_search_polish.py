"""Polishing: every exchange of two genes is tried, and it ends where none helps."""

import numpy as np

from nas2edge import AdditiveMetric, load_space
from nas2edge.costs import count_macs
from nas2edge.search.ledger import Problem
from nas2edge.search.pareto import Scores
from nas2edge.search.polish import neighbours, polish
from nas2edge.space import Codes
from tests.search_spaces import every_code, small_space

SPACE = small_space()
EVERY = every_code(SPACE)
MACS = AdditiveMetric(SPACE, count_macs)
LIMIT = float(np.median(MACS(EVERY)))
WEIGHTS = np.random.default_rng(4).random(len(SPACE.genes))


def _score(codes: Codes) -> Scores:
    return np.asarray(-np.sqrt(codes + 0.2) @ WEIGHTS)[:, None]


PROBLEM = Problem(
    space=SPACE,
    objectives=1,
    score=_score,
    violation=lambda codes: np.maximum(0.0, MACS(codes) / LIMIT - 1.0),
)


def test_neighbours_are_all_members_at_one_or_two_changes() -> None:
    code = EVERY[777]

    found = neighbours(SPACE, code, rng=np.random.default_rng(0))

    distance = (code != EVERY).sum(axis=1)
    expected = {tuple(row) for row in EVERY[(distance == 1) | (distance == 2)].tolist()}
    assert {tuple(row) for row in found.tolist()} == expected
    assert len(found) == len(expected)


def test_of_very_many_neighbours_a_part_is_drawn() -> None:
    space = load_space("attentivenas")
    code = space.sample(1, np.random.default_rng(0))[0]

    found = neighbours(space, code, rng=np.random.default_rng(0))

    assert 500 < len(found) <= 4096
    assert set((found != code).sum(axis=1).tolist()) == {1, 2}


def test_it_ends_where_no_exchange_of_two_genes_is_better() -> None:
    found = polish(PROBLEM, starts=EVERY[[0]], evaluations=5000, rng=np.random.default_rng(0))

    (best,) = found.codes
    around = neighbours(SPACE, best, rng=np.random.default_rng(0))
    inside = around[PROBLEM.violation(around) <= 0]
    assert PROBLEM.violation(found.codes)[0] <= 0
    assert found.scores[0, 0] <= _score(inside).min()


def test_a_start_outside_the_limit_comes_back_into_it() -> None:
    outside = EVERY[[int(MACS(EVERY).argmax())]]

    found = polish(PROBLEM, starts=outside, evaluations=5000, rng=np.random.default_rng(0))

    assert PROBLEM.violation(found.codes)[0] == 0


def test_the_budget_is_kept() -> None:
    found = polish(PROBLEM, starts=EVERY[:8], evaluations=100, rng=np.random.default_rng(0))

    assert found.evaluations == 100
