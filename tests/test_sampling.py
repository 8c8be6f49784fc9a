"""Which sub-networks a step trains."""

import numpy as np
import pytest
import torch

from nas2edge.additive import AdditiveMetric
from nas2edge.costs import count, count_macs
from nas2edge.plan import plan
from nas2edge.space import SubnetConfig
from nas2edge.spaces import load_space
from nas2edge.supernet.elastic import Supernet
from nas2edge.train.recipe import Recipe
from nas2edge.train.sampling import AttentiveSampler, RandomSampler, make_sampler
from nas2edge.train.step import add_gradients, make_strategy

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


def test_candidates_are_scored_by_a_predictor_where_there_is_one(monkeypatch):
    """The step asks the predictor alone: the model runs the chosen sub-networks, and no candidate besides."""
    model = Supernet(SPACE).train()
    recipe = Recipe(choose="best", candidates=4, random_subnets=2)
    asked: list[SubnetConfig] = []

    def predict(subnet: SubnetConfig) -> float:
        asked.append(subnet)
        return macs_of(subnet)

    ran: list[SubnetConfig] = []
    monkeypatch.setattr(
        model, "forward", lambda images, subnet, **options: ran.append(subnet) or torch.zeros(2, 10, requires_grad=True)
    )
    strategy = make_strategy(model, recipe, predict=predict)
    images, labels = torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)
    add_gradients(model, images, labels, strategy=strategy, rng=np.random.default_rng(0))

    assert len(asked) == 8
    best = [max(asked[i : i + 4], key=macs_of) for i in (0, 4)]
    assert ran == [SPACE.largest(), *best, SPACE.smallest()]
