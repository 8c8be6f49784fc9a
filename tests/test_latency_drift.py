"""Spot checks of tables: measured with borders, as tables are, and without, as older ones were."""

from dataclasses import replace

import numpy as np
import pytest

from nas2edge import unique_layers
from nas2edge.bench.drift import DRIFTED, HELD, spot_check
from nas2edge.latency.measure import Request, build_table
from nas2edge.latency.protocol import Options
from tests.latency_fakes import DEVICE, FakeMachine, measured_table, steady_memory
from tests.search_spaces import small_space

SPACE = small_space()
CPU = replace(DEVICE, runtime="ONNX Runtime", threads=1)
QUICK = Options(time_per_row_s=0.001, warmup_s=1e-4, sample_s=1e-4)


@pytest.fixture(autouse=True)
def _steady_memory(monkeypatch):
    monkeypatch.setattr("nas2edge.latency.measure.memory_copy", steady_memory)


def table():
    request = Request(spaces=(SPACE,), date="2026-01-31", options=QUICK, nets=0)
    return build_table(request, prepare=FakeMachine().prepare, device=CPU, cache_mb=None, protocol={},
                       rng=np.random.default_rng(0))  # fmt: skip


def test_tables_with_borders_hold_on_the_machine_that_they_are_of():
    machine = FakeMachine()

    drift = spot_check(table(), rows=8, options=QUICK, prepare=machine.prepare)

    assert drift.verdict == HELD
    assert [row.ratio for row in drift.rows] == pytest.approx([1.0] * 8)
    assert any(item.border is not None for item in machine.built)
    assert "then" in drift.changes[0]  # fingers have no version of ONNX Runtime


def test_a_machine_that_became_slower_is_found():
    drift = spot_check(table(), rows=8, options=QUICK, prepare=FakeMachine(slowdown=lambda build: 1.2).prepare)

    assert drift.verdict == DRIFTED
    assert drift.median_ratio == pytest.approx(1.2)


def test_older_tables_are_checked_as_they_were_measured():
    older = replace(measured_table(unique_layers(SPACE)), device=CPU,
                    protocol={"session_ms_taken_off_each_block": 0.003})  # fmt: skip
    machine = FakeMachine(border_ms=0.0)

    drift = spot_check(older, rows=8, options=QUICK, prepare=machine.prepare)

    assert drift.verdict == HELD
    assert not any(item.bordered for item in machine.built[1:])
