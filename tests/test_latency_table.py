import math
from dataclasses import replace

import numpy as np
import pytest

from nas2edge import AdditiveMetric, load_space, plan, unique_layers
from nas2edge.costs import count_params, peak_activations
from nas2edge.errors import TableError
from nas2edge.latency.law import ORIN_NANO, ORIN_NANO_LAW, estimated_table
from nas2edge.latency.measure import fitted
from nas2edge.latency.metrics import table_metrics
from nas2edge.latency.table import Calibration, LatencyEstimate, LatencyTable, LayerLatency, TableRow, count_launches
from tests.latency_fakes import DEVICE, layer_ms, measured_row, measured_table
from tests.search_spaces import every_code, small_space

SPACE = small_space()
SMALLEST = plan(SPACE, SPACE.smallest())


def four_rows() -> LatencyTable:
    # stem, two blocks and head of the smallest sub-network
    milliseconds = (1.0, 2.0, 4.0, 3.0)
    rows = tuple(measured_row(layer, ms, rel_sigma=0.1) for layer, ms in zip(SMALLEST, milliseconds, strict=True))
    return replace(measured_table(SMALLEST), rows=rows, rel_sigma=0.02)


def test_latency_of_a_plan_is_the_sum_of_its_rows():
    table = four_rows()

    estimate = table.estimate(SMALLEST)

    # 0.1 of each row, independent: 0.1 * sqrt(1 + 4 + 16 + 9); 0.02 of the total, shared
    sigma_ms = math.sqrt(0.01 * 30.0 + 0.2**2)
    assert estimate.sigma_ms == pytest.approx(sigma_ms)
    assert replace(estimate, sigma_ms=0.0) == LatencyEstimate(
        ms=10.0, sigma_ms=0.0, measured_share=1.0, kind="measured", missing=()
    )


def test_calibration_adds_overhead_slope_and_weights_beyond_the_cache():
    calibration = Calibration(overhead_ms=0.5, slope=2.0, cache_mb=0.01, spill_ms_per_mb=100.0)
    table = replace(four_rows(), calibration=calibration)
    weights_mb = sum(map(count_params, SMALLEST)) * 4 / 1e6

    assert weights_mb > 0.01
    assert table.estimate(SMALLEST).ms == pytest.approx(0.5 + 2.0 * 10.0 + 100.0 * (weights_mb - 0.01))


def test_the_parts_of_a_latency_add_up_to_the_estimate():
    calibration = Calibration(overhead_ms=0.5, slope=2.0, cache_mb=0.01, spill_ms_per_mb=100.0, launch_ms=0.125)
    table = replace(four_rows(), calibration=calibration)
    weights_mb = sum(map(count_params, SMALLEST)) * 4 / 1e6

    parts = table.parts_ms(SMALLEST)

    launches = sum(map(count_launches, SMALLEST))
    assert parts == pytest.approx((0.5, 20.0, 100.0 * (weights_mb - 0.01), 0.125 * launches))
    assert sum(parts) == pytest.approx(table.estimate(SMALLEST).ms)


def test_a_fitted_table_estimates_what_it_was_fitted_to():
    truth = Calibration(overhead_ms=0.1, slope=1.1, cache_mb=0.01, spill_ms_per_mb=30.0)
    table = measured_table(unique_layers(SPACE))
    networks = [plan(SPACE, subnet) for subnet in SPACE.decode(every_code(SPACE)[::17])]
    took = [replace(table, calibration=truth).estimate(layers).ms for layers in networks]

    found = fitted(table, networks, took, cache_mb=0.04)

    assert [found.estimate(layers).ms for layers in networks] == pytest.approx(took, rel=1e-6)
    assert found.calibration.spill_ms_per_mb == pytest.approx(30.0, rel=1e-3)


def test_row_returns_its_status_and_sigma():
    assert four_rows().row(SMALLEST[2]) == LayerLatency(ms=4.0, rel_sigma=0.1, status="measured")


def test_missing_rows_are_named():
    largest = plan(SPACE, SPACE.largest())
    table = four_rows()

    with pytest.raises(TableError, match="'toy' has no row for") as err:
        table.estimate(largest)

    assert largest[0].key in str(err.value)
    assert "nas2edge profile" in str(err.value)
    with pytest.raises(TableError, match="no row for 1 block,"):
        table.row(largest[0])
    with pytest.raises(TableError, match="; ...\\. Measure"):
        table.metric(SPACE)


def test_missing_rows_are_interpolated_where_the_table_has_enough_like_them():
    space = load_space("tiny")
    layers = unique_layers(space)
    complete = measured_table(layers)
    absent = layers[100]
    table = replace(complete, rows=tuple(row for row in complete.rows if row.layer.key != absent.key))
    subnet = next(subnet for subnet in space.decode(space.sample(5000, np.random.default_rng(0)))
                  if absent.key in {layer.key for layer in plan(space, subnet)})  # fmt: skip

    estimate = table.estimate(plan(space, subnet))

    # the device follows the terms of the roofline but for its count of kernels
    assert estimate.ms == pytest.approx(complete.estimate(plan(space, subnet)).ms, rel=0.02)
    assert estimate.kind == "interpolated"
    assert estimate.missing == (absent.key,)
    assert 0.5 < estimate.measured_share < 1.0
    assert table.row(absent).status == "interpolated"


def test_blocks_far_beyond_the_measured_ones_are_refused():
    tiny, big = load_space("tiny"), load_space("attentivenas")

    with pytest.raises(TableError, match="too few like it"):
        measured_table(unique_layers(tiny)).metric(big)


LARGE = Calibration(overhead_ms=0.3, slope=0.9, cache_mb=0.03, spill_ms_per_mb=3.0)


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(),
        Calibration(overhead_ms=0.1, slope=1.1, cache_mb=0.001, spill_ms_per_mb=3.0),  # all weights spill
        Calibration(overhead_ms=0.1, slope=1.1, cache_mb=0.05, spill_ms_per_mb=3.0),  # some do
        Calibration(overhead_ms=0.1, slope=1.1, cache_mb=9.0, spill_ms_per_mb=3.0),  # none do
        *(Calibration(slope=1.1, cache_mb=cache_mb, large=LARGE) for cache_mb in (0.001, 0.05, 9.0)),
    ],
)
def test_metrics_of_populations_equal_the_estimates_of_each_subnetwork(calibration):
    table = replace(measured_table(unique_layers(SPACE)), calibration=calibration)
    codes = every_code(SPACE)[::17]

    estimates = [table.estimate(plan(SPACE, subnet)) for subnet in SPACE.decode(codes)]

    np.testing.assert_allclose(table.metric(SPACE)(codes), [estimate.ms for estimate in estimates], rtol=1e-12)
    np.testing.assert_allclose(
        table.sigma_metric(SPACE)(codes), [estimate.sigma_ms for estimate in estimates], rtol=1e-12
    )


@pytest.mark.parametrize(("cache_mb", "slope"), [(0.001, 0.9), (9.0, 1.1)])
def test_a_space_on_one_side_of_the_cache_has_the_calibration_of_that_side(cache_mb, slope):
    calibration = Calibration(slope=1.1, cache_mb=cache_mb, large=replace(LARGE, cache_mb=0.001))
    table = replace(measured_table(unique_layers(SPACE)), calibration=calibration)
    codes = every_code(SPACE)[::17]

    metrics = table_metrics(table, SPACE)

    assert isinstance(metrics.latency, AdditiveMetric)
    assert table.slope(SPACE) == slope
    np.testing.assert_allclose(metrics.sigma(codes), table.sigma_metric(SPACE)(codes), rtol=1e-12)


def test_metric_knows_its_extremes_where_it_is_additive():
    table = replace(
        measured_table(unique_layers(SPACE)),
        calibration=Calibration(overhead_ms=0.1, slope=1.1, cache_mb=0.001, spill_ms_per_mb=3.0),
    )

    metric = table.metric(SPACE)

    assert isinstance(metric, AdditiveMetric)
    assert metric.minimum().value == pytest.approx(metric(every_code(SPACE)).min())


def test_estimated_table_is_labelled_and_answers_for_every_block():
    table = estimated_table(ORIN_NANO_LAW, ORIN_NANO, SMALLEST, date="2026-01-31")

    written, computed = table.row(SMALLEST[0]), table.row(plan(SPACE, SPACE.largest())[0])
    estimate = table.estimate(SMALLEST)

    assert (table.kind, estimate.kind, estimate.measured_share) == ("estimated", "estimated", 0.0)
    assert written.status == computed.status == "estimated"
    assert written.rel_sigma == computed.rel_sigma == 0.25
    assert estimate.sigma_ms >= 0.25 * estimate.ms


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p50": -1.0}, "p50 is -1.0; expected a positive number"),
        ({"p10": 0.0}, "p10 is 0.0; expected a positive number"),
        ({"p90": math.nan}, "p90 is nan"),
        ({"p90": 0.5}, "expected ascending"),
        ({"rel_sigma": -0.1}, "rel_sigma is -0.1"),
        ({"status": "guessed"}, "status is 'guessed'"),
        ({"n": 0}, "'measured' but n is 0"),
        ({"status": "estimated"}, "'estimated' but n is 100"),
    ],
)
def test_rows_that_cannot_be_are_refused(changes, message):
    with pytest.raises(TableError, match=message):
        replace(measured_row(SMALLEST[0], 1.0), **changes)


def test_tables_that_contradict_themselves_are_refused():
    table = four_rows()
    estimate = TableRow(layer=SMALLEST[0], p50=1.0, status="estimated", rel_sigma=0.25)

    with pytest.raises(TableError, match="stands twice"):
        replace(table, rows=(table.rows[0], table.rows[0]))
    with pytest.raises(TableError, match="is estimated but the table says 'measured'"):
        replace(table, rows=(estimate,))
    with pytest.raises(TableError, match="is measured but the table says 'estimated'"):
        replace(table, kind="estimated")
    with pytest.raises(TableError, match="kind is 'guessed'"):
        replace(table, kind="guessed")
    with pytest.raises(TableError, match="has no rows"):
        replace(table, rows=())
    with pytest.raises(TableError, match="has a law but"):
        replace(table, law=ORIN_NANO_LAW)
    with pytest.raises(TableError, match=r"slope is 0.0"):
        Calibration(slope=0.0)
    assert table.device == DEVICE


def with_energy(table: LatencyTable) -> LatencyTable:
    return replace(table, rows=tuple(replace(row, energy_mj=2.5 * row.p50) for row in table.rows))


def test_energy_of_a_plan_is_the_sum_of_what_was_measured():
    table = with_energy(measured_table(unique_layers(SPACE)))
    codes = every_code(SPACE)[::7]
    expected = [sum(2.5 * layer_ms(layer) for layer in plan(SPACE, subnet)) for subnet in SPACE.decode(codes)]

    assert table.has_energy
    assert table.energy_metric(SPACE)(codes) == pytest.approx(np.array(expected))
    assert [table.energy_mj(plan(SPACE, subnet)) for subnet in SPACE.decode(codes)] == pytest.approx(expected)


def test_energy_is_never_estimated():
    table = four_rows()

    assert not table.has_energy
    with pytest.raises(TableError, match=f"'toy' has no energy for '{SMALLEST[0].key}'; energy is never estimated"):
        table.energy_mj(SMALLEST)
    with pytest.raises(TableError, match="'estimated' but energy_mj is 1.0"):
        TableRow(layer=SMALLEST[0], p50=1.0, status="estimated", rel_sigma=0.1, energy_mj=1.0)
    with pytest.raises(TableError, match="energy_mj is -1.0; expected a positive number of millijoules"):
        replace(table.rows[0], energy_mj=-1.0)


def test_memory_is_all_weights_and_the_greatest_activations():
    table = replace(four_rows(), device=replace(DEVICE, precision="fp16", batch=3))

    weights = sum(count_params(layer) for layer in SMALLEST)
    assert table.memory_bytes(SMALLEST) == 2 * (weights + 3 * max(map(peak_activations, SMALLEST)))


def test_launches_beyond_the_warm_ones_cost_something_each():
    launches = sum(map(count_launches, SMALLEST))
    table = replace(four_rows(), calibration=Calibration(slope=2.0, launch_ms=0.5, warm_launches=launches - 3.0))

    assert table.estimate(SMALLEST).ms == pytest.approx(2.0 * 10.0 + 3 * 0.5)


@pytest.mark.parametrize("warm", [0.0, 14.0, 1000.0])
@pytest.mark.parametrize("cache_mb", [0.0, 0.01])
def test_metrics_with_all_terms_equal_estimates(warm, cache_mb):
    calibration = Calibration(overhead_ms=0.1, slope=1.1, cache_mb=cache_mb, spill_ms_per_mb=3.0, launch_ms=0.02,
                              warm_launches=warm)  # fmt: skip
    table = replace(measured_table(unique_layers(SPACE)), calibration=calibration)
    codes = every_code(SPACE)[::5]

    expected = [table.estimate(plan(SPACE, subnet)).ms for subnet in SPACE.decode(codes)]

    assert table.metric(SPACE)(codes) == pytest.approx(np.array(expected))
