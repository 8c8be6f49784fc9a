"""The engine against others: as good a front as pymoo's NSGA-II, and moocore's ranks and hypervolume."""

import importlib

import numpy as np
import pytest

from nas2edge import AdditiveMetric, load_space
from nas2edge.costs import count_macs
from nas2edge.search.evolution import evolve
from nas2edge.search.ledger import Problem
from nas2edge.search.pareto import hypervolume, is_on_front, rank_fronts

REASON = "to compare with: pip install 'nas2edge[bench]'"


def _problem() -> Problem:
    space = load_space("attentivenas")
    macs = AdditiveMetric(space, count_macs)
    gain = np.random.default_rng(7).random(len(space.genes))

    return Problem(
        space=space,
        objectives=2,
        score=lambda codes: np.stack([-(np.sqrt(codes) @ gain), macs(codes) / 1e6], axis=1),
        violation=lambda codes: np.zeros(len(codes)),
    )


@pytest.mark.parametrize("setting", ["pymoo, SBX and PM", "pymoo, categorical"])
def test_the_front_is_no_worse_than_that_of_pymoo(setting: str) -> None:
    pytest.importorskip("pymoo", reason=REASON)
    runs = importlib.import_module("benchmarks.pymoo_runs").PYMOO

    problem, reference, ours, theirs = _problem(), (0.0, 2000.0), 0.0, 0.0
    for seed in range(2):
        found = evolve(problem, evaluations=5000, population=100, rng=np.random.default_rng(seed))
        ours += hypervolume(found.scores, reference)
        theirs += hypervolume(runs[setting](problem, evaluations=5000, population=100, seed=seed), reference)

    assert ours >= 0.999 * theirs


@pytest.mark.parametrize("n", [1, 30, 500])
def test_the_hypervolume_is_that_of_moocore(n: int) -> None:
    moocore = pytest.importorskip("moocore", reason=REASON)
    scores = np.random.default_rng(n).random((n, 2))

    assert hypervolume(scores, (0.9, 0.8)) == pytest.approx(moocore.hypervolume(scores, ref=[0.9, 0.8]), rel=1e-12)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_fronts_and_ranks_are_those_of_moocore(objectives: int) -> None:
    moocore = pytest.importorskip("moocore", reason=REASON)
    scores = np.random.default_rng(objectives).integers(0, 12, size=(400, objectives)).astype(float)

    assert is_on_front(scores).tolist() == moocore.is_nondominated(scores, keep_weakly=True).tolist()
    assert rank_fronts(scores).tolist() == moocore.pareto_rank(scores).tolist()
