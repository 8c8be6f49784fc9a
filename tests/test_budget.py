"""Drawing by cost: counts against brute force, and that every draw falls where it should."""

from itertools import product

import numpy as np
import pytest

from nas2edge.additive import AdditiveMetric
from nas2edge.budget import BudgetSampler
from nas2edge.costs import count_macs
from nas2edge.space import SearchSpace, StageSpace
from nas2edge.spaces import load_space


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    stage = StageSpace(width=(8, 16), depth=(1, 2, 3), kernel_size=(3,), expand_ratio=(2, 3), stride=2, se=False)
    return SearchSpace(
        name="small", image_size=16, resolution=(12, 16), num_classes=4, stem_width=(8, 16), stages=(stage, stage),
        head_width=(16,), head_expand_ratio=2,
    )  # fmt: skip


def everything(space: SearchSpace) -> np.ndarray:
    return np.array(list(product(*(range(n) for n in space.cardinalities))), dtype=np.int64)


def test_the_prior_is_the_share_of_each_bin_by_brute_force(space):
    """The number of blocks is a whole number, so that no rounding is left: 2 + 2 .. 2 + 6 blocks, one a bin."""
    blocks = AdditiveMetric(space, lambda layer: 1.0)
    sampler = BudgetSampler(space, blocks, bins=4, unit=1.0)

    values = blocks(everything(space))
    expected = np.histogram(values, bins=sampler.edges)[0] / len(values)
    assert sampler.prior == pytest.approx(expected)


def test_draws_are_uniform_within_their_bin(space):
    """Of the networks with 2 + 3 blocks each must come as often as any other: chi-square of 8,000 draws."""
    blocks = AdditiveMetric(space, lambda layer: 1.0)
    sampler = BudgetSampler(space, blocks, bins=4, unit=1.0)
    members = everything(space)[blocks(everything(space)) == 5.0]

    codes = sampler.draw(bin=1, n=8_000, rng=np.random.default_rng(0))

    key = members @ (10 ** np.arange(members.shape[1]))
    drawn = codes @ (10 ** np.arange(members.shape[1]))
    counts = np.array([np.count_nonzero(drawn == k) for k in key])
    assert counts.sum() == len(codes)
    expected = len(codes) / len(members)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < len(members) + 4 * np.sqrt(2 * len(members))


def test_cheap_networks_are_reached_where_uniform_sampling_fails():
    """Below 300 MMACs lies 0.1 % of the space of AttentiveNAS."""
    space = load_space("attentivenas")
    macs = AdditiveMetric(space, count_macs)
    sampler = BudgetSampler(space, macs)
    rng = np.random.default_rng(0)

    drawn = macs(sampler.draw(bin=2, n=200, rng=rng))

    slack = 9 / 8192 * (sampler.edges[-1] - sampler.edges[0])
    assert drawn.min() >= sampler.edges[2] - slack
    assert drawn.max() <= sampler.edges[3] + slack
    assert sampler.edges[3] < 300e6
    assert sampler.prior[:3].sum() < 0.001


def test_bins_by_prior_give_back_uniform_sampling():
    """The mean of 20,000 uniform draws is 738 MMACs (AttentiveNAS's space, known figure); draws by bin must agree."""
    space = load_space("attentivenas")
    macs = AdditiveMetric(space, count_macs)
    sampler = BudgetSampler(space, macs)

    centres = (sampler.edges[:-1] + sampler.edges[1:]) / 2
    assert float(centres @ sampler.prior) == pytest.approx(738e6, rel=0.01)


def test_bins_can_be_drawn_evenly(space):
    sampler = BudgetSampler(space, AdditiveMetric(space, count_macs), bins=8)

    drawn = sampler.draw_bins(8000, np.random.default_rng(0), uniform=True)

    filled = np.count_nonzero(sampler.prior)
    assert np.bincount(drawn, minlength=8)[sampler.prior > 0] == pytest.approx(8000 / filled, rel=0.15)


def test_an_empty_bin_is_refused(space):
    sampler = BudgetSampler(space, AdditiveMetric(space, lambda layer: 1.0), bins=9, unit=1.0)
    empty = int(np.flatnonzero(sampler.prior == 0)[0])

    with pytest.raises(ValueError, match=f"no sub-network has a value in bin {empty}"):
        sampler.draw(bin=empty, n=1, rng=np.random.default_rng(0))
