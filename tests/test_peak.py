"""Peak metrics equal the greatest layer of each member's plan, and their extremes those of all members."""

import numpy as np
import pytest

from nas2edge import count, load_space, plan
from nas2edge.costs import peak_activations
from nas2edge.peak import PeakMetric
from tests.search_spaces import every_code, small_space


@pytest.mark.parametrize("name", ["attentivenas", "tiny"])
def test_a_population_is_scored_by_the_greatest_layer_of_each_plan(name: str) -> None:
    space = load_space(name)
    codes = space.sample(100, np.random.default_rng(0))

    scores = PeakMetric(space, peak_activations)(codes)

    assert scores.tolist() == [count(plan(space, subnet)).peak_activations for subnet in space.decode(codes)]


def _noise(layer: object) -> float:
    return np.random.default_rng(list(layer.key.encode())).random()  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [peak_activations, _noise])
def test_extremes_agree_with_brute_force(value: object) -> None:
    space = small_space()
    metric = PeakMetric(space, value)  # type: ignore[arg-type]

    values = metric(every_code(space))

    assert (metric.minimum().value, metric.maximum().value) == (values.min(), values.max())
    assert metric(metric.minimum().codes).tolist() == [values.min()]


def test_a_restricted_peak_is_that_of_the_kept_choices() -> None:
    space = small_space()
    kept = [list(range(len(values))) for values in space.choices]
    kept[0] = [1]
    codes = every_code(space)
    inside = codes[codes[:, 0] == 1]

    restricted = PeakMetric(space, peak_activations).restricted(kept)

    inner = inside.copy()
    inner[:, 0] = 0
    assert np.array_equal(restricted(inner), PeakMetric(space, peak_activations)(inside))
