"""nas2edge check from the command line: exit codes, what is written, and tables that have drifted."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nas2edge.bench import drift
from nas2edge.bench.drift import RowDrift, spot_check, why_not_here
from nas2edge.cli import main
from nas2edge.latency.machine import read_machine
from nas2edge.latency.protocol import Options
from nas2edge.latency.registry import load_table
from nas2edge.latency.table_file import write_table
from tests.bench_nets import chain

TIMED = ["--gate", "measured", "--budget", "300s", "--max-slowdown", "200%", "--max-growth", "none"]


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    return {blocks: str(chain(folder, blocks)) for blocks in (4, 5, 40)}


@pytest.mark.slow
def test_equal_networks_pass_and_their_result_can_be_a_baseline(runner, nets, tmp_path):
    stored, summary = tmp_path / "base.json", tmp_path / "summary.md"
    summary.write_text("before\n")
    arguments = ["check", nets[4], "--baseline", nets[4], *TIMED, "--save", str(stored), "--summary", str(summary)]
    result = runner.invoke(main, [*arguments, "--json"])
    found = json.loads(result.stdout)

    assert result.exit_code == 0, result.stderr
    assert found["verdict"] == "passed" and found["exit_code"] == 0
    gates = {gate["name"]: gate for gate in found["gates"]}
    assert gates["measured latency"]["measurement"]["comparison"]["rounds"] >= 3
    assert gates["MACs"]["old"] == gates["MACs"]["new"] > 0
    assert summary.read_text().startswith("before\n### ✅ passed")
    again = runner.invoke(main, ["check", nets[4], "--baseline", str(stored), *TIMED])
    assert again.exit_code == 0, again.stderr
    assert "relative to the anchor network" in again.stdout


@pytest.mark.slow
def test_a_network_ten_times_as_slow_fails_in_earnest(runner, nets):
    assert runner.invoke(main, ["check", nets[40], "--baseline", nets[4], *TIMED]).exit_code == 6


def test_equal_networks_pass_with_a_summary(runner, nets, clockwork, tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    result = runner.invoke(main, ["check", nets[4], "--baseline", nets[4], *TIMED, "--summary", str(summary)])

    assert result.exit_code == 0
    assert "ok   measured latency: " in result.stdout and "A/A control" in result.stdout
    assert summary.read_text().startswith("before\n### ✅ passed")


def test_a_slow_network_fails_with_6(runner, nets, clockwork, tmp_path):
    stored = tmp_path / "base.json"
    arguments = [*TIMED, "--max-slowdown", "5%", "--save", str(stored)]
    result = runner.invoke(main, ["check", nets[5], "--baseline", nets[4], *arguments])

    assert result.exit_code == 6
    assert "FAIL measured latency" in result.stdout and "rerun" in result.stdout
    assert "is slower or larger than allowed. measured latency: +" in result.stderr
    assert not stored.exists()


def test_costs_alone_fail_with_6_and_time_nothing(runner, nets):
    result = runner.invoke(main, ["check", nets[5], "--baseline", nets[4], "--gate", "deterministic", "--json"])
    found = json.loads(result.stdout)

    assert result.exit_code == 6
    assert {gate["name"] for gate in found["gates"] if gate["verdict"] == "failed"} == {
        "MACs", "parameters", "size", "operators"}  # fmt: skip
    assert all(gate["measurement"] is None for gate in found["gates"])


def test_a_limit_alone_needs_no_baseline(runner, nets, clockwork):
    fast = runner.invoke(main, ["check", nets[4], "--max-latency", "1s", "--gate", "measured"])
    slow = runner.invoke(main, ["check", nets[4], "--max-latency", "1us", "--gate", "measured"])

    assert (fast.exit_code, slow.exit_code) == (0, 6)
    assert "at most 1 us allowed" in slow.stderr


def test_too_small_a_budget_is_inconclusive_with_5(runner, nets):
    arguments = ["check", nets[4], "--baseline", nets[4], "--gate", "measured", "--budget", "1ms"]
    result = runner.invoke(main, arguments)

    assert result.exit_code == 5
    assert "a longer --budget or a quieter machine decides" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is nothing to check"),
        (["{net}"], "give --baseline, or --max-latency"),
        (["{net}", "--baseline", "none.json"], "cannot read none.json"),
        (["{net}", "--baseline", "{net}", "--budget", "0s"], "'0s' is 0.0; expected a positive number"),
        (
            ["{net}", "--baseline", "{net}", "--max-slowdown", "5"],
            "'5' is no percentage; expected 0 or more",
        ),
        (["{net}", "--baseline", "{net}", "--max-growth", "some"], "'some' is no percentage"),
        (["{net}", "--baseline", "{net}", "--summary", "none/s.md"], "there is no folder none"),
        (["{net}", "--max-latency", "5ms", "--device", "jetsn"], "did you mean 'jetson'"),
        (["--tables", "none"], "--tables none is no folder"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said, runner, nets):
    result = runner.invoke(main, ["check", *(argument.format(net=nets[4]) for argument in arguments)])

    assert result.exit_code == 2
    assert said in result.stderr


def test_a_damaged_baseline_is_refused(runner, nets, tmp_path):
    (tmp_path / "base.json").write_text('{"format": "nas2edge.bench", "version": 1}')
    result = runner.invoke(main, ["check", nets[4], "--baseline", str(tmp_path / "base.json")])

    assert result.exit_code == 2
    assert "base.json is damaged" in result.stderr


@pytest.fixture
def here():
    """A measured table that claims to be of this machine."""
    table = load_table("cpu-epyc-zen4-1t")
    return replace(table, device=replace(table.device, chip=read_machine().chip))


def prepared(table, *, factor=1.0, one=1.0):
    """Blocks that take what the table says, times a factor; every third another factor as well."""
    ms = {row.layer.key: row.p50 for row in table.rows}
    session = float(table.protocol.get("session_ms_taken_off_each_block", 0.0))
    order: dict[str, int] = {}

    def prepare(item):
        if not item.layers or item.layers[0].key not in ms:
            return lambda n: (n * 1e-6, n * 1e-6)
        key = item.layers[0].key
        slow = one if order.setdefault(key, len(order)) == 1 else 1.0
        seconds = (ms[key] * factor * slow + session) / 1e3
        return lambda n: (n * seconds, n * seconds)

    return prepare


OPTIONS = Options(time_per_row_s=1e-6, repairs=0)


@pytest.mark.parametrize(
    ("factors", "verdict", "advice"),
    [
        ({}, "held", ""),
        ({"factor": 1.2}, "drifted", "all rows have moved: measure the whole table again"),
        ({"one": 1.5}, "drifted", "1 of 8 rows have moved"),
    ],
)
def test_rows_are_measured_again_and_compared(here, factors, verdict, advice):
    found = spot_check(here, rows=8, options=OPTIONS, prepare=prepared(here, **factors))

    assert found.verdict == verdict
    assert found.advice.startswith(advice) and bool(found.advice) == bool(advice)
    assert len(found.rows) == 8
    assert found.median_ratio == pytest.approx(factors.get("factor", 1.0), rel=0.02)


def test_rows_of_a_busy_machine_do_not_count():
    rows = tuple(RowDrift(key="k", table_ms=1.0, measured_ms=9.0, allowed=0.1, quiet=quiet) for quiet in (False, True))
    busy = drift.Drift(device="d", rows=rows[:1], changes=())

    assert busy.verdict == "inconclusive" and "too busy" in busy.advice
    assert not rows[0].drifted and rows[1].drifted and rows[1].ratio == 9.0


def test_tables_of_other_machines_are_not_measured_here(here):
    machine = read_machine()

    assert why_not_here(here, machine) == ""
    assert "its rows are estimated" in why_not_here(load_table("jetson"), machine)
    other = replace(here, device=replace(here.device, chip="Z80"))
    assert why_not_here(other, machine) == f"it is of Z80; this is {machine.chip}"


def test_the_command_measures_what_it_can_and_says_what_it_cannot(runner, here, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "nas2edge.cli._check_tables.spot_check",
        lambda table, rows: spot_check(table, rows=rows, options=OPTIONS, prepare=prepared(table, factor=1.3)),
    )
    write_table(tmp_path / "jetson-orin-nano.json", load_table("jetson"))
    nothing = runner.invoke(main, ["check", "--tables", str(tmp_path)])
    write_table(tmp_path / f"{here.device.name}.json", here)
    found = runner.invoke(main, ["check", "--tables", str(tmp_path), "--rows", "4", "--json"])

    assert nothing.exit_code == 2 and "can be measured here. jetson-orin-nano.json: its rows are" in nothing.stderr
    assert found.exit_code == 6
    (table,) = json.loads(found.stdout)["tables"]
    assert table["verdict"] == "drifted" and len(table["rows"]) == 4
    assert math.isclose(table["median_ratio"], 1.3, rel_tol=0.02)
    assert "not of this machine, so not checked: jetson-orin-nano.json" in found.stderr
    assert np.mean([row["drifted"] for row in table["rows"]]) > 0.5
