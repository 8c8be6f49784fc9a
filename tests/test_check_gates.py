"""The whole check: gates without a clock, stored baselines and their fingerprint, what may fail where, the summary."""

import json
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest

import nas2edge.bench.check as checking
from nas2edge.bench.artefact import find_artefact
from nas2edge.bench.check import Report, Request, check, find_stored_artefact
from nas2edge.bench.compare import anchor_file
from nas2edge.bench.fingerprint import Fingerprint, shared_runner, take_fingerprint
from nas2edge.bench.footprint import Footprint
from nas2edge.bench.gate import Comparison, Decision
from nas2edge.bench.gates import Gate
from nas2edge.bench.measure import Options, Round
from nas2edge.bench.result import make_result, read_stored, results_dict, timing, untimed_result
from nas2edge.bench.stats import Interval
from nas2edge.bench.summary import chart, report_markdown
from nas2edge.errors import FormatError, InputError
from nas2edge.files import write_json
from nas2edge.graph import network_model, random_weights
from nas2edge.latency.registry import load_table
from nas2edge.plan import plan
from nas2edge.spaces import load_space
from tests.bench_nets import START, chain


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    return {blocks: find_artefact(str(chain(folder, blocks))) for blocks in (4, 5)}


def by_name(report: Report) -> dict[str, Gate]:
    return {gate.name: gate for gate in report.gates}


def test_equal_networks_pass_all_gates(nets, quiet, clockwork):
    report = check(Request(new=nets[4], old=nets[4]))

    assert [gate.verdict for gate in report.gates] == ["passed"] * 6
    assert (report.verdict, report.exit_code, report.notes) == ("passed", 0, ())
    assert clockwork[0] == [nets[4].name] * 3


def test_growth_fails_first_and_then_nothing_is_timed(nets, quiet, clockwork):
    report = check(Request(new=nets[5], old=nets[4]))

    assert (report.verdict, report.exit_code) == ("failed", 6)
    assert by_name(report)["MACs"].detail.endswith("(+25.0%), at most +5.0% allowed")
    assert by_name(report)["measured latency"].verdict == "skipped"
    assert not clockwork


def test_where_growth_is_allowed_the_slowdown_fails(nets, quiet, clockwork):
    report = check(Request(new=nets[5], old=nets[4], max_growth=math.inf))
    gate = by_name(report)["measured latency"]

    assert report.exit_code == 6
    assert gate.new == pytest.approx(1.25, rel=0.01)
    assert gate.decision is not None and gate.decision.confirmation is not None
    assert by_name(report)["MACs"].verdict == "passed"


def test_on_a_ci_runner_the_measured_latency_is_shown_but_cannot_fail(nets, quiet, clockwork, monkeypatch):
    monkeypatch.setenv("CI", "true")
    slower = Request(new=nets[5], old=nets[4], max_growth=math.inf)
    auto, measured, deterministic = (check(replace(slower, mode=mode)) for mode in checking.MODES)

    gate = by_name(auto)["measured latency"]
    assert (auto.exit_code, gate.verdict, gate.hard) == (0, "failed", False)
    assert "this is a CI runner (CI is set)" in auto.notes[0]
    assert measured.exit_code == 6
    assert "measured latency" not in by_name(deterministic)


def test_a_busy_machine_is_a_shared_one(quiet, monkeypatch):
    assert shared_runner() == ""
    monkeypatch.setattr("os.getloadavg", lambda: (64.0, 1.0, 1.0))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert shared_runner() == "the machine is busy (load 16.00 a core, above 0.5)"


def test_an_absolute_limit_is_measured_with_an_interval(nets, quiet, clockwork):
    within, beyond = (check(Request(new=nets[4], old=None, max_latency_ms=ms)) for ms in (4.4, 3.6))

    assert within.exit_code == 0
    assert by_name(beyond)["absolute latency"].detail.startswith("4 ms [")
    assert beyond.exit_code == 6


def test_relative_and_absolute_limits_share_the_budget(nets, quiet, clockwork):
    report = check(Request(new=nets[4], old=nets[4], max_latency_ms=20.0))

    assert [gate.name for gate in report.gates[-2:]] == ["measured latency", "absolute latency"]
    assert report.exit_code == 0


def test_too_little_time_is_inconclusive(nets, quiet, clockwork):
    report = check(Request(new=nets[4], old=nets[4], budget_s=1e-9))

    assert report.exit_code == 5
    assert "fewer than 3 rounds" in by_name(report)["measured latency"].detail


def test_tables_predict_without_a_clock(tmp_path, clockwork):
    space = load_space("tiny")
    nets = []
    for end in ("smallest", "largest"):
        layers = plan(space, getattr(space, end)())
        meta = {"nas2edge.space": "tiny", "nas2edge.subnet": json.dumps(getattr(space, end)().to_dict())}
        model = network_model(layers, random_weights(layers, np.random.default_rng(0)), metadata=meta)
        onnx.save(model, tmp_path / f"{end}.onnx")
        nets.append(find_artefact(str(tmp_path / f"{end}.onnx")))
    table = load_table("jetson")
    name = f"table latency ({table.device.name})"
    free = {"max_growth": math.inf, "mode": "deterministic", "table": table,
            "options": Options(same_input=False)}  # fmt: skip
    grown = by_name(check(Request(new=nets[1], old=nets[0], max_latency_ms=1000.0, **free)))
    write_json(tmp_path / "largest.json", results_dict([untimed_result(nets[1])], fingerprint=None, conditions={}))
    shrunk = by_name(check(Request(new=nets[0], old=read_stored(tmp_path / "largest.json"), **free)))

    assert grown[name].verdict == "failed"
    assert grown[f"{name}, absolute"].verdict == "passed"
    assert "by the estimated table jetson-orin-nano" in grown[name].detail
    assert shrunk[name].verdict == "passed"
    assert not clockwork


def test_a_network_that_no_table_can_predict_is_refused(nets):
    with pytest.raises(InputError, match="does not say which sub-network it is"):
        check(Request(new=nets[4], old=None, max_latency_ms=5.0, table=load_table("jetson")))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"old": None}, "nothing to check against; give --baseline, or --max-latency"),
        ({"old": None, "max_latency_ms": 5.0, "mode": "deterministic"}, "--gate deterministic measures nothing"),
        ({"budget_s": 0.0}, "the budget is 0 s"),
        ({"mode": "hard"}, "expected one of auto, measured, deterministic"),
    ],
)
def test_requests_that_make_no_sense_are_refused(nets, settings, said):
    with pytest.raises(InputError, match=said):
        Request(new=nets[4], **{"old": nets[4], **settings})


@pytest.mark.parametrize("mode", checking.MODES)
def test_networks_with_different_inputs_are_refused_before_anything_is_timed(nets, tmp_path, mode, clockwork):
    wider = find_artefact(str(chain(tmp_path, 4, side=16)))
    untimed = tmp_path / "costs.json"
    write_json(untimed, results_dict([untimed_result(wider)], fingerprint=None, conditions={}))
    for old in (wider, read_stored(untimed)):
        with pytest.raises(InputError, match="takes float32 1x16x8x8, but .* float32 1x16x16x16"):
            check(Request(new=nets[4], old=old, mode=mode))
    assert not clockwork


def stored(artefact, path, *, fingerprint=None, ms=4.0):
    logs = np.log(np.array([[ms], [8.0]]) / 1e3) + np.random.default_rng(1).normal(0, 0.002, (2, 12))
    rounds = [Round(logs=logs, runs=tuple(np.exp(row) for row in logs), starts=(START,) * 2)] * 4
    result = make_result(artefact, Footprint(macs=1), rounds, index=0, anchor=1)
    here = take_fingerprint(runtimes=(START.runtime,), threads=1)
    write_json(path, results_dict([result], fingerprint=fingerprint or here, conditions={}))
    return read_stored(path)


def test_a_stored_result_of_this_machine_is_compared_by_the_anchor(nets, quiet, clockwork, tmp_path):
    baseline = stored(nets[4], tmp_path / "base.json")
    same, slower = (check(Request(new=nets[n], old=baseline, max_growth=math.inf)) for n in (4, 5))

    assert same.exit_code == 0
    assert "both relative to the anchor network" in same.notes[0]
    assert by_name(slower)["measured latency"].new == pytest.approx(1.25, rel=0.01)
    assert slower.exit_code == 6
    assert ["the anchor", nets[4].name] in clockwork


def test_a_stored_result_of_another_machine_is_said_and_its_artefact_measured_again(nets, quiet, clockwork, tmp_path):
    other = replace(take_fingerprint(runtimes=(START.runtime,), threads=1), chip="Z80", cores=1)
    report = check(
        Request(new=nets[4], old=stored(nets[4], tmp_path / "base.json", fingerprint=other), max_growth=math.inf)
    )

    assert report.exit_code == 0
    assert "is of another machine or setting (chip: Z80 there, " in report.notes[0]
    assert "is measured again instead" in report.notes[0]
    assert clockwork[-1] == [nets[4].name] * 3


def test_a_stored_result_without_its_artefact_is_inconclusive_elsewhere(nets, quiet, clockwork, tmp_path):
    other = replace(take_fingerprint(runtimes=(START.runtime,), threads=1), os="CP/M")
    baseline = stored(nets[4], tmp_path / "base.json", fingerprint=other)
    gone = replace(baseline, name="gone.onnx")
    changed = replace(baseline, sha256="0")

    assert find_stored_artefact(gone) is None is find_stored_artefact(changed)
    report = check(Request(new=nets[4], old=gone, max_growth=math.inf))
    assert report.exit_code == 5
    assert "gone.onnx, of which it was taken, is not here" in by_name(report)["measured latency"].detail


def test_a_stored_result_of_another_input_is_refused(nets, quiet, clockwork, tmp_path):
    baseline = replace(stored(nets[4], tmp_path / "base.json"), shape=(1, 16, 9, 9))
    with pytest.raises(InputError, match="takes float32 1x16x8x8, but .* float32 1x16x9x9"):
        check(Request(new=nets[4], old=baseline, max_growth=math.inf))


def test_a_stored_result_without_times_is_a_baseline_without_a_clock(nets, quiet, clockwork, tmp_path):
    path = tmp_path / "costs.json"
    write_json(path, results_dict([untimed_result(nets[4])], fingerprint=None, conditions={}))
    deterministic = Request(new=nets[5], old=read_stored(path), mode="deterministic")

    assert check(deterministic).exit_code == 6
    assert check(replace(deterministic, new=nets[4])).exit_code == 0


@pytest.mark.parametrize("damage", ["", "{}", '{"format": "nas2edge.bench", "version": 1, "results": []}', "\x00"])
def test_unreadable_baselines_are_said_to_be_so(damage, tmp_path):
    path = tmp_path / "base.json"
    path.write_text(damage)
    with pytest.raises(FormatError, match="base.json"):
        read_stored(path)


def test_a_result_sums_up_its_rounds(nets):
    runs = (np.linspace(0.001, 0.002, 101), np.full(3, 0.1))
    rounds = [Round(logs=np.log(np.full((2, 12), 0.0015)), runs=runs, starts=(START, START))] * 2
    found = timing(rounds, 0)

    assert (found.runs, found.min, found.max) == pytest.approx((202, 1.0, 2.0))
    assert (found.p50, found.p90, found.p99) == pytest.approx((1.5, 1.9, 1.99), rel=1e-3)
    assert (found.load_ms, found.first_ms, found.peak_bytes, found.added_bytes) == (10.0, 2.0, 3_000_000, 2_000_000)
    assert found.warm and found.p50_interval.low == pytest.approx(1.5)


def test_fingerprints_survive_a_file_and_name_what_differs():
    ours = take_fingerprint(runtimes=("ncnn 1", "ONNX Runtime 1"), threads=2)
    theirs = replace(ours, governor="powersave", threads=4)

    assert Fingerprint.from_dict(json.loads(json.dumps(ours.to_dict()))) == ours
    assert ours.differences(ours) == ()
    assert ours.differences(theirs)[-1] == "threads: 4 there, 2 here"
    with pytest.raises(FormatError, match="a fingerprint is an object with exactly the fields"):
        Fingerprint.from_dict({"chip": "Z80"})


def test_the_anchor_is_the_same_every_time():
    with anchor_file() as first, anchor_file() as second:
        assert first != second
        assert first.read_bytes() == second.read_bytes()
    assert not first.exists()


def test_the_summary_shows_verdicts_and_a_chart():
    ratio = Interval(estimate=1.1, low=1.08, high=1.13)
    control = Interval(estimate=1.0, low=0.99, high=1.01)
    found = Comparison(ratio=ratio, control=control, rounds=3)
    decision = Decision(verdict="failed", comparison=found, confirmation=found, reason="", seconds=9.0,
                        rounds=(Round(logs=np.zeros((3, 2))),) * 6)  # fmt: skip
    gates = (
        Gate(name="MACs", verdict="passed", hard=True, detail="1M to 1M | same"),
        Gate(name="measured latency", verdict="failed", hard=True, detail="+10 %", old=1.0, new=1.1, limit=1.05,
             decision=decision),
    )  # fmt: skip
    text = report_markdown(
        Report(gates=gates, notes=("a note",), new=Footprint(), old=Footprint()), new="new`.onnx", old="old.onnx"
    )

    assert text.startswith("### ❌ failed: `new'.onnx` against `old.onnx`\n")
    assert "| MACs | ✅ passed | 1M to 1M \\| same |" in text
    assert "| measured latency | ❌ failed | +10 % |" in text
    assert "```text\nnew / old" in text and "rerun" in text and "6 rounds in 9 s" in text
    assert text.endswith("> a note\n")


def test_the_chart_puts_intervals_where_they_belong():
    lines = chart(
        [("new", Interval(estimate=1.0, low=0.9, high=1.1)), ("A/A", Interval(estimate=1.0, low=1.0, high=1.0))],
        limit=1.05,
    )

    assert lines[0].index("[") < lines[0].index("o") < lines[0].index("]")
    assert lines[0].index("o") == lines[1].index("o") == lines[2].index("0", 20)
    assert lines[1].index("¦") > lines[1].index("o")
    assert lines[0].endswith("+0.0% [-10.0%, +10.0%]")
    assert all(len(line) < 110 for line in lines)
