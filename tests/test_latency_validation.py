"""Validation: which networks are drawn, what the report says, and the command from end to end."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from nas2edge import AdditiveMetric, load_space, plan, unique_layers
from nas2edge.cli import main
from nas2edge.costs import count_macs
from nas2edge.errors import InconclusiveError, InputError
from nas2edge.latency import read_table, write_table
from nas2edge.latency.calibrate import MEMORY_POWER, validate
from nas2edge.latency.protocol import MEMORY_MS, REFERENCE_MS, Options
from nas2edge.latency.table import Calibration
from nas2edge.latency.validation import (
    FRONT,
    RANDOM,
    UNIFORM,
    ValidatedNet,
    ValidationRequest,
    draw_validation_nets,
    report_of,
    validate_table,
)
from nas2edge.report.scatter import Point, scatter_png
from nas2edge.space import SubnetConfig
from tests.latency_fakes import DEVICE, FakeMachine, measured_table, steady_memory
from tests.search_spaces import small_space

TINY = load_space("tiny")
TABLE = replace(measured_table(unique_layers(TINY)), device=replace(DEVICE, runtime="ONNX Runtime", threads=1))
QUICK = Options(time_per_row_s=0.001, warmup_s=1e-4, sample_s=1e-4)


@pytest.fixture(autouse=True)
def _steady_memory(monkeypatch):
    monkeypatch.setattr("nas2edge.latency.measure.memory_copy", steady_memory)


def test_networks_are_drawn_where_searches_look():
    drawn = draw_validation_nets(TINY, TABLE, 100, rng=np.random.default_rng(0))
    macs = AdditiveMetric(TINY, count_macs)
    ids = {subnet.id for _, subnet in drawn}
    roles = Counter(role for role, _ in drawn)

    def values(role, metric):
        return np.array([metric(plan(TINY, subnet)) for found, subnet in drawn if found == role])

    assert len(ids) == 100
    assert {TINY.decode(end.codes)[0].id for end in (macs.minimum(), macs.maximum())} <= ids
    assert (roles[UNIFORM], roles[FRONT]) == (40, 40)
    uniform = values(UNIFORM, lambda layers: sum(map(count_macs, layers)))
    steps = np.linspace(macs.minimum().value, macs.maximum().value, 5)
    assert all(((uniform >= low) & (uniform <= high)).sum() >= 7 for low, high in zip(steps, steps[1:], strict=False))
    rate = lambda layers: sum(map(count_macs, layers)) / TABLE.estimate(layers).ms  # noqa: E731
    assert values(FRONT, rate).mean() > values(RANDOM, rate).mean()


def net(predicted, measured, *, sigma=0.1, quiet=True, role=RANDOM):
    return ValidatedNet(id="x", subnet=TINY.smallest(), role=role, resolution=32, macs=1, predicted_ms=predicted,
                        sigma_ms=sigma, measured_ms=measured, measured_rel_sigma=0.01, quiet=quiet)  # fmt: skip


def test_the_report_counts_networks_of_a_quiet_machine():
    nets = [net(1.04, 1.0), net(2.16, 2.0, role=UNIFORM), net(4.0, 4.0), net(9.0, 1.0, quiet=False)]

    report = report_of(TABLE, TINY, nets, state={})

    assert report.summary.nets == 3
    assert report.summary.mape == pytest.approx(4.0)
    assert report.summary.bias == pytest.approx(4.0)
    assert (report.summary.within_5, report.summary.within_10) == (pytest.approx(2 / 3), 1.0)
    assert report.within_one_sigma == pytest.approx(2 / 3)  # 0.16 is more than 0.1
    assert report.disturbed == 1
    assert report.by_role[UNIFORM] == pytest.approx({"nets": 1, "mape": 8.0, "bias": 8.0})


@pytest.mark.parametrize(
    ("then", "now", "slower"), [(2.0, 2.3, 0.15), (2.0, 1.9, -0.05), (None, 2.3, None), (2.0, None, None)]
)
def test_the_report_says_how_the_machine_has_changed(then, now, slower):
    expected = None if slower is None else pytest.approx(slower)
    for name, other in ((MEMORY_MS, REFERENCE_MS), (REFERENCE_MS, MEMORY_MS)):
        table = replace(TABLE, protocol={**TABLE.protocol, name: then, other: 1.0})

        report = report_of(table, TINY, [net(1.04, 1.0)], state={name: now, other: 1.0})

        found = {MEMORY_MS: report.memory_slower, REFERENCE_MS: report.reference_slower}
        assert found == {name: expected, other: 0.0}


def test_the_report_judges_the_table_told_how_fast_the_memory_is(monkeypatch):
    monkeypatch.setattr("nas2edge.latency.items._STREAMED_MB", 0.0)
    # The copy of the stand-in takes a millisecond; when the table was measured it took 1.25.
    before = Calibration(cache_mb=0.001, spill_ms_per_mb=0.0, large=Calibration(slope=1.0))
    table = replace(TABLE, protocol={**TABLE.protocol, MEMORY_MS: 1.25}, calibration=before)
    request = ValidationRequest(nets=20, options=QUICK)

    def run(request):
        _, (report,) = validate_table(table, [TINY], request, prepare=FakeMachine().prepare,
                                      rng=np.random.default_rng(0))  # fmt: skip
        return report

    report = run(request)

    assert report.memory_slower == pytest.approx(-0.2)
    for net in report.nets:
        assert net.predicted_now_ms == pytest.approx(0.8**MEMORY_POWER * net.predicted_ms)
    assert report.summary_now.bias == pytest.approx(100 * (0.8**MEMORY_POWER * (1 + report.summary.bias / 100) - 1))
    # What was fitted to the networks knows the memory already.
    assert run(replace(request, calibrate=True)).summary_now is None


def test_a_busy_machine_gives_no_report():
    with pytest.raises(InconclusiveError, match="busy during 2 of 3 networks.*run it again"):
        report_of(TABLE, TINY, [net(1.0, 1.0), net(1.0, 1.0, quiet=False), net(1.0, 1.0, quiet=False)], state={})


def test_interrupted_validations_go_on(tmp_path):
    request = ValidationRequest(nets=60, options=QUICK, partial=tmp_path / "x.partial")
    killed, resumed = FakeMachine(), FakeMachine()

    def kill(done, planned):
        if done == 30:
            raise KeyboardInterrupt

    def run(machine, request, progress=lambda done, planned: None):
        return validate_table(TABLE, [TINY], request, prepare=machine.prepare, rng=np.random.default_rng(0),
                              progress=progress)  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run(killed, request, kill)
    _, (report,) = run(resumed, request)

    assert len(resumed.built) == 1 + 2 * 60 - 25  # the reference; saved every 25
    assert report.summary.nets == 60
    # The table knows nothing of the 3 us that a run costs.
    assert -5 < report.summary.bias < 0
    with pytest.raises(InputError, match="left by a measurement of another"):
        run(FakeMachine(), replace(request, seed=7))


def test_calibrations_are_fitted_to_all_networks_and_judged_by_fits_to_others():
    request = ValidationRequest(nets=50, options=QUICK, calibrate=True)

    table, (report,) = validate_table(TABLE, [TINY], request, prepare=FakeMachine().prepare,
                                      rng=np.random.default_rng(0))  # fmt: skip

    assert TABLE.calibration.nets == 0
    assert (table.calibration.nets, report.summary.nets) == (50, 50)
    assert table.calibration.overhead_ms == pytest.approx(0.003, rel=0.01)
    assert report.summary.mape < 0.01
    assert report.digest == table.digest != TABLE.digest
    # The error that is stated is that of the predictions, not what the table had before.
    errors = np.array([net.predicted_ms / net.measured_ms - 1 for net in report.nets])
    assert TABLE.rel_sigma > table.rel_sigma == pytest.approx(np.sqrt(np.mean(errors**2)))


def test_networks_of_several_spaces_calibrate_together():
    other = small_space()
    table = replace(measured_table([*unique_layers(TINY), *unique_layers(other)]), device=TABLE.device)
    request = ValidationRequest(nets=20, options=QUICK, calibrate=True)
    machine = FakeMachine()

    table, reports = validate_table(table, [TINY, other], request, prepare=machine.prepare,
                                    rng=np.random.default_rng(0))  # fmt: skip

    assert table.calibration.nets == 40
    assert [(report.space, report.summary.nets) for report in reports] == [("tiny", 20), (other.name, 20)]
    assert {report.digest for report in reports} == {table.digest}
    order = [item.id.split()[0] for item in machine.built[1:]]
    assert order != sorted(order) and order != sorted(order, reverse=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "toy.json", TABLE)
    monkeypatch.setattr("nas2edge.latency.target.make_prepare", lambda target, **others: FakeMachine().prepare)
    return tmp_path


def test_the_command_writes_report_and_plot_and_updates_the_table(folder):
    pytest.importorskip("matplotlib")
    command = ["tables", "validate", "toy.json", "--nets", "20", "--time-per-network", "1ms", "--update", "--json"]

    result = CliRunner().invoke(main, command)

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((folder / "toy-tiny.validation.json").read_text())
    assert len(document["nets"]) == document["summary"]["nets"] == 20
    for net in document["nets"]:
        subnet = SubnetConfig.from_dict(net["subnet"])
        assert (net["id"], net["macs"]) == (subnet.id, sum(map(count_macs, plan(TINY, subnet))))
    assert (folder / "toy-tiny.validation.png").read_bytes().startswith(b"\x89PNG")
    (entry,) = read_table(folder / "toy.json").validation
    assert (entry.space, entry.nets, entry.mape) == ("tiny", 20, pytest.approx(document["summary"]["mape"], rel=1e-4))
    assert not (folder / "toy-tiny.validation.partial").exists()
    assert "Kendall tau" in result.stderr


def test_visits_that_are_kept_make_the_report_anew(folder, monkeypatch):
    machine = FakeMachine()
    monkeypatch.setattr("nas2edge.latency.target.make_prepare", lambda target, **others: machine.prepare)
    command = ["tables", "validate", "toy.json", "--nets", "20", "--time-per-network", "1ms", "--json"]

    first = CliRunner().invoke(main, [*command, "--keep-visits"])
    machine.built.clear()
    again = CliRunner().invoke(main, command)

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert json.loads(first.stdout) == json.loads(again.stdout)
    assert len(machine.built) == 1  # the reference
    assert not (folder / "toy-tiny.validation.partial").exists()


def test_the_command_reports_on_every_space(folder):
    pytest.importorskip("matplotlib")
    rows = measured_table([*unique_layers(TINY), *unique_layers(small_space())]).rows
    old = validate("tiny", [1.0, 2.0], [1.0, 2.1])
    write_table(folder / "toy.json", replace(TABLE, rows=rows, validation=(old, replace(old, space="small"))))
    (folder / "small.json").write_text(json.dumps(small_space().to_dict()))
    command = ["tables", "validate", "toy.json", "--space", "tiny", "--space", "small.json", "--nets", "20"]

    result = CliRunner().invoke(main, [*command, "--time-per-network", "1ms", "--update", "--json"])

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["format"], len(document["reports"])) == ("nas2edge.table_validations", 2)
    assert [report["space"] for report in document["reports"]] == ["tiny", "small"]
    assert (folder / "toy-tiny.validation.json").exists() and (folder / "toy-small.validation.png").exists()
    entries = read_table(folder / "toy.json").validation
    assert [(entry.space, entry.nets) for entry in entries] == [("tiny", 20), ("small", 20)]


@pytest.mark.parametrize("large", [None, Calibration(slope=1.1)], ids=["in the cache", "beyond it"])
def test_the_command_says_what_the_memory_explains(folder, monkeypatch, large):
    monkeypatch.setattr("nas2edge.latency.items._STREAMED_MB", 0.0)
    calibration = Calibration(cache_mb=0.001, large=large) if large else Calibration()
    protocol = {**TABLE.protocol, MEMORY_MS: 1.25}
    write_table(folder / "toy.json", replace(TABLE, protocol=protocol, calibration=calibration))

    result = CliRunner().invoke(main, ["tables", "validate", "toy.json", "--nets", "20", "--time-per-network", "1ms"])

    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert ("took 0.80 times what it took when the table was measured; told so" in said) == (large is not None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jetson-orin-nano"], "'jetson-orin-nano' is of TensorRT, which cannot be measured here"),
        (["cpu", "--update"], "TABLE must be its .json file"),
        (["toy.json", "--out", "report.txt"], "does not end in .json"),
        (["toy.json", "--space", "tiny", "--space", "attentivenas", "--out", "a.json"], "names one report"),
        (["toy.json", "--space", "attentivenas"], "no row for"),
    ],
)
def test_what_cannot_be_validated_is_refused(folder, arguments, message):
    result = CliRunner().invoke(main, ["tables", "validate", *arguments])

    assert result.exit_code == 2
    assert message in result.stderr


def test_plots_are_pictures_of_every_group():
    pytest.importorskip("matplotlib")
    points = [Point(measured_ms=float(i), predicted_ms=1.05 * i, sigma_ms=0.1, group=str(i % 9)) for i in range(1, 40)]

    png = scatter_png(points, title="a board", caption="5 % off")

    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") > 600
