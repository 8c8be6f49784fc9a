import json
from dataclasses import replace

import numpy as np
import pytest

from nas2edge import load_space, unique_layers
from nas2edge.errors import FormatError, InputError
from nas2edge.latency.borders import border_shapes
from nas2edge.latency.machine import read_machine
from nas2edge.latency.measure import Request, build_table, profile_machine
from nas2edge.latency.protocol import Options
from nas2edge.latency.target import Target
from tests.latency_fakes import DEVICE, FakeMachine, layer_ms, steady_memory
from tests.search_spaces import small_space

SPACE = small_space()
QUICK = Options(time_per_row_s=0.001, warmup_s=1e-4, sample_s=1e-4)


@pytest.fixture(autouse=True)
def _steady_memory(monkeypatch):
    monkeypatch.setattr("nas2edge.latency.measure.memory_copy", steady_memory)


def build(machine, *, partial=None, options=QUICK, seed=0, progress=lambda done, planned: None):
    request = Request(spaces=(SPACE,), date="2026-01-31", seed=seed, options=options, nets=20, partial=partial)
    return build_table(request, prepare=machine.prepare, device=DEVICE, cache_mb=32.0, protocol={"tool": "a test"},
                       rng=np.random.default_rng(0), progress=progress)  # fmt: skip


def test_rows_are_blocks_without_the_ends_that_they_were_measured_between():
    table = build(FakeMachine(session_ms=0.003))

    assert {row.layer.key for row in table.rows} == {layer.key for layer in unique_layers(SPACE)}
    for row in table.rows:
        # What entering and leaving costs stays with the stem and the head, half each: a network pays it once.
        paid = {"first_conv": 0.0015, "mbpool": 0.0015}.get(row.layer.op, 0.0)
        assert row.p50 == pytest.approx(layer_ms(row.layer) + paid)
    assert table.calibration.overhead_ms == pytest.approx(0.0, abs=1e-6)
    assert table.calibration.slope == pytest.approx(1.0)
    (validation,) = table.validation
    assert (validation.space, validation.nets, validation.within_5) == ("small", 20, 1.0)
    assert validation.mape < 1e-6
    assert (table.kind, table.protocol["disturbed_rows"]) == ("measured", 0)
    assert table.protocol["reference_ms"] > 0.0


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
    whole = len(unique_layers(SPACE)) + 20 + len(border_shapes(unique_layers(SPACE)))
    assert len(resumed.built) == 1 + 2 * whole - visited  # and the reference
    assert table.protocol["resumed_visits"] == visited
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


@pytest.mark.parametrize(
    ("runtime", "name"), [("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO"), ("ncnn", "ncnn")]
)
def test_this_machine_can_be_measured(runtime, name):
    pytest.importorskip(runtime)
    space = load_space("tiny")
    layers = unique_layers(space)
    request = Request(spaces=(space,), date="2026-01-31", nets=0, layers=(layers[0], layers[9], layers[-1]),
                      options=replace(QUICK, retries=0, repairs=0))  # fmt: skip

    table = profile_machine(request, name="cpu", target=Target(runtime=runtime))

    assert [row.status for row in table.rows] == ["measured"] * 3
    assert (table.device.runtime, table.device.threads, table.device.batch) == (name, 1, 1)
    assert table.device.runtime_version


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
