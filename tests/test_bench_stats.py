"""Intervals: as wide as they must be, for samples that share their luck."""

import numpy as np
import pytest

from nas2edge.bench.stats import Interval, difference_interval, median_interval, t_quantile


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042)]
)
def test_quantiles_of_t_are_those_of_the_tables(degrees, expected):
    assert t_quantile(0.975, degrees) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("rounds", [2, 3, 5, 10])
def test_the_interval_holds_the_truth_as_often_as_it_says(rounds):
    """Rounds are off by 0.5 % each, which samples inside a round do not show. 200 trials: 0.95 +- 0.015."""
    rng = np.random.default_rng(rounds)
    held = 0
    for seed in range(200):
        samples = rng.normal(0.0, 0.005, (rounds, 1)) + rng.normal(0.0, 0.01, (rounds, 12))
        found = median_interval(samples, seed=seed)
        held += found.low < 0.0 < found.high

    assert held / 200 > 0.93


def test_more_rounds_make_it_narrower():
    rng = np.random.default_rng(0)
    samples = rng.normal(0.0, 0.005, (16, 1)) + rng.normal(0.0, 0.01, (16, 12))
    few, many = median_interval(samples[:4]), median_interval(samples)

    assert many.high - many.low < 0.6 * (few.high - few.low)


def test_one_round_is_resampled_by_blocks_and_a_few_samples_say_nothing():
    rng = np.random.default_rng(0)
    found = median_interval(rng.normal(1.0, 0.01, (1, 40)))

    assert 0.9 < found.low < found.estimate < found.high < 1.1
    assert median_interval(np.ones((1, 4))) == Interval(estimate=1.0, low=-np.inf, high=np.inf)


def test_samples_without_noise_have_an_interval_of_no_width():
    assert median_interval(np.full((3, 8), 2.0)) == Interval(estimate=2.0, low=2.0, high=2.0)


def test_a_burst_does_not_move_the_median():
    samples = np.zeros((4, 12))
    samples[1, 3:8] = 1.0

    assert median_interval(samples).estimate == 0.0


def test_a_difference_of_samples_taken_apart_is_wider_than_either():
    rng = np.random.default_rng(0)
    new, old = rng.normal(0.1, 0.01, (5, 12)), rng.normal(0.0, 0.01, (6, 20))
    found, alone = difference_interval(new, old), median_interval(new)

    assert found.low < 0.1 < found.high
    assert found.high - found.low > alone.high - alone.low


def test_widening_and_mapping_keep_the_estimate():
    found = Interval(estimate=0.0, low=-1.0, high=2.0).widen(0.5).map(lambda x: x + 1.0)

    assert found == Interval(estimate=1.0, low=-0.5, high=3.5)
