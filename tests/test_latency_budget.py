"""Tables from part of their rows: what is chosen, how the rest is filled, and how long it takes."""

from dataclasses import replace

import numpy as np
import pytest

from nas2edge import load_space, plan, unique_layers
from nas2edge.errors import InconclusiveError, TableError
from nas2edge.latency import load_table
from nas2edge.latency.budgeted import build_within
from nas2edge.latency.choose import block_weights, choose
from nas2edge.latency.fill import common_rel_sigma, fill_rows, fit_fill
from nas2edge.latency.measure import Request
from nas2edge.latency.protocol import Options
from nas2edge.latency.table import INTERPOLATED, MEASURED
from tests.latency_fakes import DEVICE, FakeMachine, layer_ms, measured_row, steady_memory
from tests.search_spaces import small_space

TINY = load_space("tiny")
LAYERS = unique_layers(TINY)
SMALL = small_space()
QUICK = Options(time_per_row_s=0.02, warmup_s=1e-4, sample_s=1e-3)


@pytest.fixture(autouse=True)
def _steady_memory(monkeypatch):
    monkeypatch.setattr("nas2edge.latency.measure.memory_copy", steady_memory)


def build(machine, seconds, **changes):
    request = Request(**{"spaces": (TINY,), "date": "2026-01-31", "options": QUICK, "nets": 20, **changes})
    return build_within(request, seconds=seconds, prepare=machine.prepare, device=DEVICE, cache_mb=32.0, protocol={},
                        rng=np.random.default_rng(0), clock=machine.clock)  # fmt: skip


def test_a_third_of_a_real_table_predicts_networks_within_two_percent():
    table = load_table("cpu-epyc-zen4-1t")
    rows = {row.layer.key: row for row in table.rows}
    weights = block_weights([TINY], LAYERS, rng=np.random.default_rng(0))
    chosen = choose(LAYERS, weights, n=len(LAYERS) // 3)
    networks = [plan(TINY, subnet) for subnet in TINY.decode(TINY.sample(100, np.random.default_rng(1)))]

    filled = replace(table, rows=fill_rows(LAYERS, [rows[LAYERS[i].key] for i in chosen]))

    assert {row.layer.key for row in filled.rows} == {layer.key for layer in LAYERS}
    errors = np.array([filled.estimate(net).ms / table.estimate(net).ms - 1.0 for net in networks])
    assert np.abs(errors).mean() < 0.01
    assert np.abs(errors).max() < 0.03
    guessed = [row for row in filled.rows if row.status == INTERPOLATED]
    inside = [abs(row.p50 / rows[row.layer.key].p50 - 1.0) <= row.rel_sigma for row in guessed]
    assert len(guessed) == len(LAYERS) - len(chosen)
    assert 0.55 < np.mean(inside) < 0.95
    assert {row.status for row in filled.rows} == {MEASURED, INTERPOLATED}
    assert 0.0 <= common_rel_sigma(filled.rows, networks) < 0.02


def test_filling_needs_enough_rows_and_leaves_measured_ones_alone():
    rows = [measured_row(layer, layer_ms(layer)) for layer in LAYERS]

    assert fill_rows(LAYERS, rows) == tuple(rows)
    assert fill_rows(LAYERS, rows[:100])[:100] == tuple(rows[:100])
    with pytest.raises(TableError, match="10 rows are measured, and filling the others needs 24"):
        fill_rows(LAYERS, rows[:10])


def test_blocks_unlike_all_measured_ones_have_wider_errors():
    near = [layer for layer in LAYERS if layer.op == "mbconv" and layer.kernel_size == 3 and not layer.se_chs]
    far = [layer for layer in LAYERS if layer.op == "mbconv" and layer.kernel_size == 5 and layer.se_chs]
    rng = np.random.default_rng(0)
    noisy = [layer_ms(layer) * float(np.exp(0.05 * rng.standard_normal())) for layer in near]

    model = fit_fill(near[::2], noisy[::2])

    assert model.predict(far)[1].mean() > model.predict(near[1::2])[1].mean()


def test_what_matters_and_is_not_known_is_chosen_first():
    weights = block_weights([TINY], LAYERS, rng=np.random.default_rng(0))

    order = choose(LAYERS, weights, n=len(LAYERS))
    again = choose(LAYERS, weights, n=20, chosen=order[:30])

    assert sorted(order) == list(range(len(LAYERS)))
    assert again == order[30:50]
    assert weights.sum() == pytest.approx(1.0, rel=0.01)
    assert np.mean(weights[order[:90]]) > 2 * np.mean(weights[order[90:]])
    assert {LAYERS[i].op for i in order[:40]} == {"first_conv", "mbconv", "mbpool"}


def test_the_budget_is_kept_and_spent():
    machine = FakeMachine()

    table = build(machine, 13.0, spaces=(SMALL,))

    assert 11.0 < machine.now < 13.5
    statuses = [row.status for row in table.rows]
    assert len(statuses) == len(unique_layers(SMALL))
    assert 40 < statuses.count(MEASURED) < len(statuses)
    assert table.protocol["measured_rows"] == statuses.count(MEASURED)
    assert table.protocol["reference_ms"] > 0.0
    (validation,) = table.validation
    assert validation.mape < 2.0
    networks = [plan(SMALL, subnet) for subnet in SMALL.decode(SMALL.sample(50, np.random.default_rng(5)))]
    errors = [table.estimate(net).ms / (0.003 + sum(map(layer_ms, net))) - 1.0 for net in networks]
    assert np.abs(errors).mean() < 0.02


def test_with_time_for_all_nothing_is_interpolated():
    table = build(FakeMachine(), 1e4)

    assert {row.status for row in table.rows} == {MEASURED}
    assert table.protocol["interpolated_rows"] == 0


def test_too_short_a_budget_is_said_and_can_be_gone_on_with(tmp_path):
    partial = tmp_path / "x.partial"

    with pytest.raises(InconclusiveError, match="0.5 s were enough for .* of 282 blocks.*--budget"):
        build(FakeMachine(), 0.5, partial=partial)
    table = build(FakeMachine(), 15.0, partial=partial)

    assert table.protocol["measured_rows"] > 24
