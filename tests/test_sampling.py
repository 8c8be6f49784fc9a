"""Which sub-networks a step trains."""

import numpy as np
import pytest

from nas2edge.additive import AdditiveMetric
from nas2edge.costs import count, count_macs
from nas2edge.plan import plan
from nas2edge.spaces import load_space
from nas2edge.train.recipe import Recipe
from nas2edge.train.sampling import AttentiveSampler, RandomSampler, make_sampler

SPACE = load_space("tiny")


def macs_of(subnet) -> float:
    return float(count(plan(SPACE, subnet)).macs)


def never(subnet) -> float:
    raise AssertionError("random sampling needs no score")


def test_random_sampling_draws_as_many_as_asked():
    drawn = RandomSampler(SPACE, n=5).draw(np.random.default_rng(0), never)

    assert drawn == SPACE.decode(SPACE.sample(5, np.random.default_rng(0)))


@pytest.mark.parametrize("worst", [False, True], ids=["best", "worst"])
def test_attentive_sampling_keeps_the_best_or_worst_candidate(worst):
    sampler = AttentiveSampler(SPACE, n=4, candidates=3, worst=worst, even=False, bins=16)
    scored: list[float] = []

    def score(subnet) -> float:
        scored.append(macs_of(subnet))
        return scored[-1]

    drawn = sampler.draw(np.random.default_rng(0), score)

    groups = np.array(scored).reshape(4, 3)
    assert [macs_of(subnet) for subnet in drawn] == (groups.max(1) if worst else groups.min(1)).tolist()


def test_candidates_have_about_equal_macs():
    sampler = AttentiveSampler(SPACE, n=8, candidates=3, worst=False, even=True, bins=16)
    scored: list[float] = []

    sampler.draw(np.random.default_rng(0), lambda subnet: scored.append(macs_of(subnet)) or 0.0)

    width = sampler.budget.edges[1] - sampler.budget.edges[0]
    assert (np.ptp(np.array(scored).reshape(8, 3), axis=1) < 1.1 * width).all()


def test_even_bins_reach_small_budgets_that_shares_of_the_space_do_not():
    """The cheapest tenth of the range, below 377 MMACs, has 2 to 3 % of the space of AttentiveNAS."""
    space = load_space("attentivenas")
    macs = AdditiveMetric(space, count_macs)
    least, greatest = macs.minimum().value, macs.maximum().value
    rng = np.random.default_rng(0)

    def share_of_cheap(prior: str) -> float:
        sampler = make_sampler(space, Recipe(choose="best", prior=prior, candidates=1, random_subnets=300))
        drawn = space.encode(sampler.draw(rng, lambda subnet: 0.0))
        return float((macs(drawn) < least + 0.1 * (greatest - least)).mean())

    assert share_of_cheap("even") > 0.05
    assert share_of_cheap("share") < 0.045
