"""Statistics that several parts share."""

import numpy as np
import pytest

from nas2edge.stats import kendall_tau


def test_kendall_tau_by_hand():
    a = np.array([1.0, 2.0, 3.0, 4.0])

    assert kendall_tau(a, a) == 1.0
    assert kendall_tau(a, -a) == -1.0
    assert kendall_tau(a, np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(4 / 6)  # one pair of six is swapped
    assert kendall_tau(a, np.ones(4)) == 0.0
    # one tie: five untied pairs of b, all in order
    assert kendall_tau(a, np.array([1.0, 1.0, 2.0, 3.0])) == pytest.approx(5 / np.sqrt(6 * 5))
