"""Least and greatest values of additive metrics, which say whether a limit can be met and whether it binds."""

from collections.abc import Callable

import numpy as np
import pytest

from nas2edge import AdditiveMetric, LayerSpec, SearchSpace, StageSpace, load_space
from nas2edge.costs import count_macs
from tests.search_spaces import every_code, small_space

Value = Callable[[LayerSpec], float]


def _noise(layer: LayerSpec) -> float:
    """A metric without any order in it, so that the extremes lie at no corner of the space."""
    return np.random.default_rng(list(layer.key.encode())).random()


@pytest.mark.parametrize("value", [count_macs, _noise])
def test_extremes_agree_with_brute_force(value: Value) -> None:
    space = small_space()
    metric = AdditiveMetric(space, value)

    values = metric(every_code(space))

    assert metric.minimum().value == values.min()
    assert metric.maximum().value == values.max()


@pytest.mark.parametrize("value", [count_macs, _noise])
def test_the_member_at_an_extreme_has_its_value(value: Value) -> None:
    space = load_space("attentivenas")
    metric = AdditiveMetric(space, value)

    for extreme in (metric.minimum(), metric.maximum()):
        space.validate(space.decode(extreme.codes)[0])
        assert metric(extreme.codes).tolist() == [extreme.value]


def test_extremes_of_macs_are_those_of_the_smallest_and_largest_network() -> None:
    space = load_space("attentivenas")
    metric = AdditiveMetric(space, count_macs)

    assert space.decode(metric.minimum().codes) == [space.smallest()]
    assert space.decode(metric.maximum().codes) == [space.largest()]
    assert (metric.minimum().value, metric.maximum().value) == (203_389_568, 1_939_335_808)


def test_no_random_member_of_a_large_space_lies_outside_the_extremes() -> None:
    space = load_space("attentivenas")
    metric = AdditiveMetric(space, _noise)

    values = metric(space.sample(50_000, np.random.default_rng(0)))

    assert metric.minimum().value < values.min()
    assert metric.maximum().value > values.max()


def test_a_space_of_one_network_has_equal_extremes() -> None:
    stage = StageSpace(width=(8,), depth=(1,), kernel_size=(3,), expand_ratio=(2,), stride=1, se=False)
    space = SearchSpace(
        name="one", image_size=16, resolution=(16,), num_classes=2, stem_width=(8,), stages=(stage,),
        head_width=(16,), head_expand_ratio=2,
    )  # fmt: skip
    metric = AdditiveMetric(space, count_macs)

    assert metric.minimum().value == metric.maximum().value
