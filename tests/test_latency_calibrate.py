from dataclasses import asdict, replace

import numpy as np
import pytest

from nas2edge import load_space, unique_layers
from nas2edge.latency.calibrate import MEMORY_POWER, fit_calibration, held_out, in_memory_state, validate
from nas2edge.latency.roofline import MIN_ROWS, fit_roofline, solve_nonnegative
from nas2edge.latency.table import Calibration
from tests.latency_fakes import layer_ms

SUMS = np.linspace(1.0, 9.0, 20)


def test_calibration_recovers_overhead_and_slope():
    fit = fit_calibration(SUMS, np.zeros(20), 0.25 + 1.5 * SUMS, cache_mb=8.0)

    assert (fit.overhead_ms, fit.slope, fit.spill_ms_per_mb) == pytest.approx((0.25, 1.5, 0.0))
    assert fit.nets == 20


def test_calibration_withstands_outliers():
    measured = 0.25 + 1.5 * SUMS * (1 + 0.002 * np.cos(np.arange(20)))
    measured[[3, 11]] *= 1.6

    fit = fit_calibration(SUMS, np.zeros(20), measured, cache_mb=None)

    assert fit.slope == pytest.approx(1.5, rel=0.01)


def test_calibration_finds_the_cost_of_weights_beyond_the_cache():
    weights = np.tile([1.0, 3.0, 10.0, 20.0, 30.0], 4)
    measured = 0.25 + SUMS + 0.1 * np.maximum(0.0, weights - 8.0)

    fit = fit_calibration(SUMS, weights, measured, cache_mb=32.0)

    assert (fit.cache_mb, fit.spill_ms_per_mb, fit.slope) == pytest.approx((8.0, 0.1, 1.0))


def test_large_networks_are_no_outliers_beside_quiet_small_ones():
    """Small ones repeat to 0.3 %; of four large ones, one is 4 % slower than the others, as its memory lies badly."""
    small, large = np.linspace(0.1, 0.4, 20), np.linspace(10.0, 50.0, 20)
    weights = np.concatenate([np.full(20, 2.0), np.linspace(36.0, 90.0, 20)])
    true = np.concatenate([small, large]) + 0.05 * np.maximum(0.0, weights - 8.0)
    off = np.concatenate([np.tile([0.003, -0.003], 10), np.tile([-0.015, -0.01, 0.0, 0.04], 5)])
    measured = true * (1 + off)

    fit = fit_calibration(np.concatenate([small, large]), weights, measured, cache_mb=32.0)

    spilled = fit.spill_ms_per_mb * np.maximum(0.0, weights - fit.cache_mb)
    errors = (fit.overhead_ms + fit.slope * np.concatenate([small, large]) + spilled) / measured - 1
    assert abs(errors[:20].mean()) < 0.001
    assert abs(errors[20:].mean()) < 0.005


def test_networks_on_either_side_of_the_cache_have_lines_of_their_own_where_one_does_not_suit():
    rng = np.random.default_rng(0)
    sums = np.concatenate([rng.uniform(0.1, 0.4, 20), rng.uniform(10.0, 50.0, 20)])
    weights = np.concatenate([rng.uniform(1.0, 3.0, 20), rng.uniform(36.0, 90.0, 20)])
    small, large = 0.01 + 1.08 * sums, 2.0 + 0.95 * sums + 0.05 * (weights - 32.0)

    fit = fit_calibration(sums, weights, np.where(weights > 32.0, large, small), cache_mb=32.0)
    same = fit_calibration(sums, weights, small * (1 + 0.005 * rng.standard_normal(40)), cache_mb=32.0)

    assert (fit.overhead_ms, fit.slope, fit.nets) == (pytest.approx(0.01), pytest.approx(1.08), 40)
    assert (fit.large.slope, fit.large.spill_ms_per_mb) == (pytest.approx(0.95), pytest.approx(0.05))
    assert fit.large.nets == 20
    np.testing.assert_allclose(fit.total_ms(sums, weights, 0), np.where(weights > 32.0, large, small), rtol=1e-6)
    assert same.large is None


@pytest.mark.parametrize(("n", "overhead", "slope", "told"), [(10, 0.0, 1.0, False), (100, 1.0, 0.95, True)])
def test_a_line_of_their_own_is_told_from_noise(n, overhead, slope, told):
    """Networks repeat to 2 %. A few of one line must not get two; many tell that large ones cost 1 ms more a run."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        sums = np.concatenate([rng.uniform(0.1, 0.4, n), rng.uniform(10.0, 50.0, n)])
        weights = np.concatenate([rng.uniform(1.0, 3.0, n), rng.uniform(36.0, 90.0, n)])
        true = np.where(weights > 32.0, overhead + slope * sums + 0.05 * (weights - 32.0), sums)
        fit = fit_calibration(sums, weights, true * (1 + 0.02 * rng.standard_normal(2 * n)), cache_mb=32.0)
        assert (fit.large is not None) == told


def test_every_network_is_predicted_by_a_fit_to_others():
    seen = []

    def predict(others, ours):
        seen.append((others, ours))
        return [10.0 * i for i in ours]

    np.testing.assert_array_equal(held_out(7, predict), 10.0 * np.arange(7))
    assert seen[0] == ([1, 2, 3, 4, 6], [0, 5])
    assert all(sorted([*others, *ours]) == list(range(7)) for others, ours in seen)


def test_networks_that_do_not_go_with_their_sum_have_a_factor_alone():
    """Overhead alone would suit these best, but what the blocks cost cannot be nothing."""
    fit = fit_calibration(SUMS, np.zeros(20), SUMS[::-1], cache_mb=None)

    assert fit.overhead_ms == 0.0
    assert 0 < fit.slope < 1


def test_few_networks_leave_the_plain_sum():
    assert fit_calibration([1.0, 2.0], [0.0, 0.0], [2.0, 4.0], cache_mb=None) == Calibration()


def test_validation_by_hand():
    # errors: +8 %, -4 %, 0, +20 %
    found = validate("toy", [1.08, 1.92, 3.0, 4.8], [1.0, 2.0, 3.0, 4.0])

    assert asdict(found) == pytest.approx(
        {"space": "toy", "nets": 4, "mape": 8.0, "bias": 4.0, "within_5": 0.5, "within_10": 0.75, "kendall_tau": 1.0}
    )


def test_nonnegative_least_squares_meets_the_optimality_conditions():
    rng = np.random.default_rng(0)
    for _ in range(50):
        matrix, target = rng.standard_normal((12, 6)), rng.standard_normal(12)

        x = solve_nonnegative(matrix, target)

        gradient = matrix.T @ (target - matrix @ x)
        assert (x >= 0).all()
        assert (gradient <= 1e-8).all()
        np.testing.assert_allclose(gradient[x > 0], 0.0, atol=1e-8)


def test_roofline_needs_enough_rows_and_states_its_error():
    layers = unique_layers(load_space("tiny"))

    assert fit_roofline(layers[: MIN_ROWS - 1], [1.0] * (MIN_ROWS - 1)) is None
    close = fit_roofline(layers, [layer_ms(layer) for layer in layers])
    noise = 1 + 0.1 * np.random.default_rng(0).standard_normal(len(layers))
    noisy = fit_roofline(layers, [layer_ms(layer) * factor for layer, factor in zip(layers, noise, strict=True)])

    assert close is not None and close.rel_sigma < 0.06
    assert noisy is not None and 0.07 < noisy.rel_sigma < 0.15


def test_launches_are_fitted_where_they_explain_something():
    rng = np.random.default_rng(0)
    sums, weights = rng.uniform(0.1, 0.4, 40), rng.uniform(0.5, 2.0, 40)
    launches = rng.integers(40, 90, 40)

    fit = fit_calibration(sums, weights, 1.05 * sums + 0.0005 * (launches - 20), cache_mb=32.0, launches=launches)
    plain = fit_calibration(sums, weights, 0.01 + 1.05 * sums, cache_mb=32.0, launches=launches)

    assert fit.launch_ms == pytest.approx(0.0005, rel=0.05)
    assert fit.slope == pytest.approx(1.05, rel=0.01)
    assert fit.rel_rms < 1e-3
    assert (plain.launch_ms, plain.warm_launches) == (0.0, 0.0)
    assert plain.overhead_ms == pytest.approx(0.01)


def test_a_calibration_is_carried_over_to_another_state_of_the_memory():
    line = Calibration(overhead_ms=0.1, slope=1.1, cache_mb=10.0, spill_ms_per_mb=0.02, launch_ms=0.001)
    large = Calibration(overhead_ms=0.5, slope=1.2, cache_mb=10.0, spill_ms_per_mb=0.03)
    factor = 0.8**MEMORY_POWER

    for calibration in (line, replace(line, large=large)):
        now = in_memory_state(calibration, -0.2)

        small, beyond = (5.0, 9.0, 100), (5.0, 30.0, 100)
        assert now.total_ms(*small) == pytest.approx(calibration.total_ms(*small))
        assert now.total_ms(*beyond) == pytest.approx(factor * calibration.total_ms(*beyond))
        assert in_memory_state(calibration, 0.0).total_ms(*beyond) == pytest.approx(calibration.total_ms(*beyond))


def test_a_calibration_in_which_weights_cost_nothing_does_not_depend_on_the_memory():
    calibration = Calibration(overhead_ms=0.1, slope=1.1)

    assert in_memory_state(calibration, 0.5) == calibration
