import json
from dataclasses import replace

import numpy as np
import pytest

from nas2edge import load_space, unique_layers
from nas2edge.errors import FormatError, InputError
from nas2edge.latency.machine import read_machine
from nas2edge.latency.measure import build_table, profile_cpu
from nas2edge.latency.protocol import Options
from tests.latency_fakes import DEVICE, FakeMachine, layer_ms
from tests.search_spaces import small_space

SPACE = small_space()
QUICK = Options(time_per_row_s=0.001, warmup_s=1e-4, sample_s=1e-4)


def build(machine, *, partial=None, options=QUICK, seed=0, progress=lambda done, planned: None):
    return build_table([SPACE], prepare=machine.prepare, device=DEVICE, cache_mb=32.0, protocol={"tool": "a test"},
                       date="2026-01-31", seed=seed, options=options, nets=20, rng=np.random.default_rng(0),
                       partial=partial, progress=progress)  # fmt: skip


def test_rows_are_blocks_less_the_session_and_networks_get_it_once():
    table = build(FakeMachine(session_ms=0.003))

    assert {row.layer.key for row in table.rows} == {layer.key for layer in unique_layers(SPACE)}
    assert all(row.p50 == pytest.approx(layer_ms(row.layer)) for row in table.rows)
    assert table.calibration.overhead_ms == pytest.approx(0.003)
    assert table.calibration.slope == pytest.approx(1.0)
    assert table.protocol["session_ms_taken_off_each_block"] == pytest.approx(0.003)
    (validation,) = table.validation
    assert (validation.space, validation.nets, validation.within_5) == ("small", 12, 1.0)
    assert validation.mape < 1e-6
    assert (table.kind, table.protocol["disturbed_rows"]) == ("measured", 0)


def test_killed_measurements_resume(tmp_path):
    partial = tmp_path / "toy.partial"
    killed, resumed = FakeMachine(), FakeMachine()

    def kill(done, planned):
        if done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(killed, partial=partial, progress=kill)
    table = build(resumed, partial=partial)

    visited = 50  # saved every 25
    whole = len(unique_layers(SPACE)) + 20 + 27
    assert len(resumed.built) == 1 + 2 * whole - visited  # and the reference
    assert table.calibration.slope == pytest.approx(1.0)


def test_partial_files_of_another_measurement_are_refused(tmp_path):
    partial = tmp_path / "toy.partial"
    build(FakeMachine(), partial=partial)

    with pytest.raises(InputError, match="left by a measurement of another device.*--restart"):
        build(FakeMachine(), partial=partial, seed=1)


def test_damaged_partial_files_are_refused(tmp_path):
    partial = tmp_path / "toy.partial"
    build(FakeMachine(), partial=partial)
    raw = json.loads(partial.read_text())
    raw["visits"] = {"a": [{"n": 1}]}
    partial.write_text(json.dumps(raw))

    with pytest.raises(FormatError, match="toy.partial is damaged.*--restart"):
        build(FakeMachine(), partial=partial)


def test_this_machine_can_be_measured():
    space = load_space("tiny")
    layers = unique_layers(space)

    table = profile_cpu([space], name="cpu", date="2026-01-31", nets=0, layers=[layers[0], layers[-1]],
                        options=replace(QUICK, retries=0, repairs=0))  # fmt: skip

    assert [row.status for row in table.rows] == ["measured", "measured"]
    assert table.device.runtime == "ONNX Runtime"
    assert table.device.threads == 1


def test_facts_of_a_machine_are_read_and_unknown_ones_left_open(tmp_path):
    cpu0 = tmp_path / "sys/devices/system/cpu/cpu0"
    for index, (level, size, kind) in enumerate([("1", "32K", "Instruction"), ("3", "32768K", "Unified")]):
        folder = cpu0 / f"cache/index{index}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("size", size), ("type", kind)):
            (folder / name).write_text(text + "\n")
    (cpu0 / "cpufreq").mkdir()
    (cpu0 / "cpufreq/scaling_governor").write_text("performance\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Toy 9\ncpu MHz\t\t: 2596.146\n")

    known, unknown = read_machine(tmp_path), read_machine(tmp_path / "nothing")

    assert (known.chip, known.cores, known.governor, known.mhz) == ("Toy 9", 1, "performance", 2596.146)
    assert known.cache_mb == pytest.approx(33.554432)
    assert (unknown.cache_mb, unknown.mhz, unknown.governor, unknown.memory) == (None, None, "", "")
