"""Additive metrics of populations equal the sums over each member's plan."""

import numpy as np
import pytest

from nas2edge.additive import AdditiveMetric
from nas2edge.costs import count_macs, count_params
from nas2edge.plan import plan
from nas2edge.spaces import load_space


@pytest.mark.parametrize("name", ["attentivenas", "tiny"])
@pytest.mark.parametrize(
    "value", [count_macs, count_params, lambda layer: 0.1 * layer.hw_in], ids=["macs", "params", "other"]
)
def test_a_population_is_scored_by_the_sum_over_each_plan(name, value):
    space = load_space(name)
    codes = space.sample(100, np.random.default_rng(0))

    scores = AdditiveMetric(space, value)(codes)

    assert scores == pytest.approx([sum(map(value, plan(space, subnet))) for subnet in space.decode(codes)])


def test_each_distinct_layer_is_valued_once():
    space = load_space("attentivenas")
    seen: list[str] = []

    def value(layer):
        seen.append(layer.key)
        return 1.0

    AdditiveMetric(space, value)

    assert len(seen) == len(set(seen)) == 896


def test_an_empty_population_has_no_scores():
    space = load_space("tiny")

    assert AdditiveMetric(space, count_macs)(space.encode([])).shape == (0,)


def test_a_stage_may_start_at_more_than_one_block(tiny_space, rng):
    """Its depths are 2 and 4; scores of integers are exact."""
    codes = tiny_space.sample(200, rng)

    scores = AdditiveMetric(tiny_space, count_macs)(codes)

    assert scores.tolist() == [sum(map(count_macs, plan(tiny_space, subnet))) for subnet in tiny_space.decode(codes)]


def test_a_restricted_metric_is_that_of_the_kept_choices():
    space = load_space("tiny")
    kept = [
        [len(values) - 1] if gene == "depth.2" else range(len(values))
        for gene, values in zip(space.genes, space.choices, strict=True)
    ]
    codes = space.sample(50, np.random.default_rng(0))
    column = space.genes.index("depth.2")
    codes[:, column] = 2
    metric = AdditiveMetric(space, count_macs)

    restricted = metric.restricted(kept)

    inner = codes.copy()
    inner[:, column] = 0
    assert np.array_equal(restricted(inner), metric(codes))
    assert restricted.minimum().value > metric.minimum().value


def test_a_weighted_sum_of_metrics_is_a_metric():
    space = load_space("tiny")
    codes = space.sample(50, np.random.default_rng(0))
    macs, params = AdditiveMetric(space, count_macs), AdditiveMetric(space, count_params)

    assert macs.plus(params, weight=2.0)(codes).tolist() == (macs(codes) + 2.0 * params(codes)).tolist()
