"""The exact front: equal to brute force up to its grid, never over the limit, and never above its bound."""

from typing import Any

import numpy as np
import pytest

from nas2edge import AdditiveMetric, LayerSpec, load_space
from nas2edge.costs import count_macs, count_params
from nas2edge.errors import InputError
from nas2edge.search import Constraint, search
from nas2edge.search.exact import exact_front, fit_additive
from tests.search_spaces import every_code, small_space

SPACE = small_space()
EVERY = every_code(SPACE)


def _gain(layer: LayerSpec) -> float:
    return float(np.random.default_rng(list(layer.key.encode())).random()) + layer.hw_in / 30


ACCURACY, MACS = AdditiveMetric(SPACE, _gain), AdditiveMetric(SPACE, count_macs)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("steps", [50, 4096])
def test_the_best_within_a_limit_agrees_with_brute_force_up_to_the_grid(share: float, steps: int) -> None:
    low, high = MACS.minimum().value, MACS.maximum().value
    limit = low + share * (high - low)

    found = exact_front(ACCURACY, MACS, limit=limit, steps=steps)

    costs, accuracies = MACS(EVERY), ACCURACY(EVERY)
    best = ACCURACY(found.codes).max()
    true = accuracies[costs <= limit].max()
    surely = costs <= limit - len(MACS.pieces) * found.unit
    assert (MACS(found.codes) <= limit).all()
    assert best <= true + 1e-9
    assert true <= found.bound + 1e-9
    assert best >= accuracies[surely].max(initial=-np.inf) - 1e-9


def test_on_a_fine_grid_the_whole_front_is_that_of_brute_force() -> None:
    found = exact_front(ACCURACY, MACS, steps=200_000)

    costs, accuracies = MACS(EVERY), ACCURACY(EVERY)
    for cost, accuracy in zip(MACS(found.codes), ACCURACY(found.codes), strict=True):
        assert accuracy == pytest.approx(accuracies[costs <= cost].max())


def test_a_limit_out_of_reach_has_no_front() -> None:
    assert len(exact_front(ACCURACY, MACS, limit=1.0).codes) == 0


def test_a_fit_of_a_sum_recovers_it() -> None:
    space = load_space("tiny")
    macs = AdditiveMetric(space, count_macs)

    fit, error = fit_additive(space, lambda codes: 60.0 + macs(codes) / 1e6, np.random.default_rng(0))

    codes = space.sample(500, np.random.default_rng(1))
    assert error < 0.1  # products of more than two genes are beyond it; the values spread over 9
    assert np.abs(fit(codes) - 60.0 - macs(codes) / 1e6).max() < 0.5


def _search(**changes: Any) -> Any:
    return search(SPACE, **{"accuracy": ACCURACY, "algorithm": "exact", **changes})


def test_search_by_the_exact_algorithm_says_in_what_sense_it_is_exact() -> None:
    limit = float(np.median(MACS(EVERY)))

    result = _search(constraints=[Constraint(metric="macs", limit=limit)])

    assert result.algorithm == "exact"
    assert result.best.macs <= limit
    assert result.exactness.fit_error == 0.0
    assert ACCURACY(EVERY)[MACS(EVERY) <= limit].max() <= result.exactness.bound + 1e-9
    assert result.best.accuracy > result.exactness.bound - 0.1


def test_an_accuracy_that_is_no_sum_is_fitted_and_the_true_values_are_reported() -> None:
    def accuracy(codes: Any) -> Any:
        return 10.0 * np.log(ACCURACY(codes))

    result = _search(accuracy=accuracy)

    assert result.exactness.fit_error > 0
    assert result.best.accuracy == accuracy(SPACE.encode([result.best.subnet]))[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constraints": [Constraint(metric="params", limit=15_000)]}, "takes one cost.*got parameters <= 15k; MACs"),
        ({"latency": {"pi": lambda codes: MACS(codes)}}, "takes one cost"),
        ({"latency": {"a": MACS, "b": MACS}}, "takes one cost"),
        ({"guided": True}, "needs an accuracy that is cheap"),
    ],
)
def test_what_is_no_such_problem_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _search(**changes)


def test_several_limits_on_the_one_cost_are_served_at_once() -> None:
    result = _search(
        alternatives=[[Constraint(metric="macs", limit=limit)] for limit in (300e3, 200e3)], fixed={"resolution": 24}
    )

    for choice, limit in zip(result.choices, (300e3, 200e3), strict=True):
        inside = EVERY[(MACS(EVERY) <= limit) & (EVERY[:, 0] == 1)]
        assert choice.candidate.accuracy == pytest.approx(ACCURACY(inside).max(), abs=0.05)
        assert choice.candidate.macs <= limit


def test_the_cost_may_be_any_sum() -> None:
    params = AdditiveMetric(SPACE, count_params)

    result = _search(latency={"pi": params})

    assert result.best.latency_ms["pi"] == result.best.params
