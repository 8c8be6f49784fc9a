"""Accuracy from the published AlphaNet points: what it knows, and what it states of its error."""

import numpy as np
import pytest

from nas2edge import load_space
from nas2edge.errors import InputError
from nas2edge.search import search
from nas2edge.search.published import PublishedAccuracy
from nas2edge.spaces.published import ALPHANET
from tests.search_spaces import small_space

SPACE = load_space("attentivenas")
ACCURACY = PublishedAccuracy(SPACE)


def test_published_networks_get_their_accuracy_within_the_stated_error() -> None:
    codes = SPACE.encode(net.subnet for net in ALPHANET)

    error = ACCURACY(codes) - np.array([net.top1 for net in ALPHANET])

    assert np.abs(error).max() < ACCURACY.max_error
    assert ACCURACY.distance(codes).max() < 0.02


def test_the_stated_error_is_that_of_leaving_each_network_out() -> None:
    assert ACCURACY.rms_error == pytest.approx(0.077, abs=0.001)
    assert ACCURACY.max_error == pytest.approx(0.140, abs=0.001)


def test_the_curve_rises_with_macs_and_is_held_beyond_the_published_range() -> None:
    smallest, largest = SPACE.encode([SPACE.smallest(), SPACE.largest()])
    known = ACCURACY(SPACE.encode(net.subnet for net in ALPHANET))

    assert (np.diff(known) > 0).all()
    assert ACCURACY(smallest[None])[0] == known[0]
    assert ACCURACY(largest[None])[0] < known[-1]


def test_distance_is_about_one_for_a_random_network() -> None:
    codes = SPACE.sample(2000, np.random.default_rng(5))

    assert np.median(ACCURACY.distance(codes)) == pytest.approx(1.0, abs=0.05)
    assert ACCURACY.distance(codes).max() < 2.0


def test_other_spaces_are_refused() -> None:
    with pytest.raises(InputError, match="exist for the space 'attentivenas' only; got 'small'"):
        PublishedAccuracy(small_space())


def test_a_search_stays_near_the_published_proportions() -> None:
    result = search(SPACE, accuracy=ACCURACY, evaluations=5000, population=100)

    distances = ACCURACY.distance(SPACE.encode(candidate.subnet for candidate in result.front))
    assert np.median(distances) < 0.5
    assert result.best.macs <= 720e6
