import json

import pytest
from click.testing import CliRunner

from nas2edge.cli import main
from nas2edge.latency import read_table
from tests.latency_fakes import FakeMachine, steady_memory

QUICK = ["--time-per-row", "1ms", "--networks", "10"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")


@pytest.fixture
def machine(monkeypatch):
    fake = FakeMachine()
    monkeypatch.setattr("nas2edge.latency.measure.make_prepare", lambda target, **others: fake.prepare)
    monkeypatch.setattr("nas2edge.latency.measure.memory_copy", steady_memory)
    return fake


def invoke(*args, exit_code=0):
    result = CliRunner().invoke(main, args)
    assert result.exit_code == exit_code, result.output
    return result


def test_devices_lists_tables_with_kind_and_error_and_explains_aliases():
    shown = invoke("devices").output

    (line,) = [line for line in shown.splitlines() if line.startswith("jetson-orin-nano ")]
    assert "estimated" in line
    assert "±25 % expected" in line
    assert "TensorRT 10.1" in line
    assert "jetson means jetson-orin-nano" in shown


def test_devices_without_rows_are_laws():
    (line,) = [line for line in invoke("devices").output.splitlines() if line.startswith("raspberry-pi-4 ")]

    assert line.split()[:5] == ["raspberry-pi-4", "estimated", "±21", "%", "expected"]
    assert " law " in line


def test_devices_as_json():
    shown = json.loads(invoke("devices", "--json").stdout)

    entry = next(entry for entry in shown["devices"] if entry["name"] == "jetson-orin-nano")
    assert (entry["kind"], entry["aliases"], entry["rows"]) == ("estimated", ["jetson"], 1178)
    assert shown["aliases"]["jetson"]["device"] == "jetson-orin-nano"


def test_devices_names_unreadable_tables(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "broken.json").write_text("{")

    shown = invoke("devices", "--tables", "mine").output

    assert "unreadable: mine/broken.json does not parse" in shown
    assert "is no folder" in invoke("devices", "--tables", "nowhere", exit_code=2).stderr


def test_profile_measures_calibrates_and_validates(tmp_path, machine):
    result = invoke("profile", "--device", "cpu", "--json", *QUICK)

    summary = json.loads(result.stdout)
    table = read_table(tmp_path / "latency_tables" / "cpu.json")
    assert (summary["kind"], summary["rows"]) == ("measured", 282)
    assert summary["validation"][0]["nets"] == 10
    assert len(table.rows) == 282
    assert table.device.name == "cpu"
    assert table.protocol["command"].startswith("nas2edge")
    assert not list((tmp_path / "latency_tables").glob("*.partial"))
    assert "cpu" in invoke("devices").output


def test_visits_that_are_kept_make_the_table_anew(tmp_path, machine):
    invoke("profile", "--keep-visits", *QUICK)
    kept = tmp_path / "latency_tables" / "cpu.partial"
    visits = json.loads(kept.read_text())["visits"]
    first = read_table(tmp_path / "latency_tables" / "cpu.json")
    machine.built.clear()

    invoke("profile", *QUICK)

    assert len(machine.built) == 1  # the reference
    assert len(visits) > len(first.rows)
    assert read_table(tmp_path / "latency_tables" / "cpu.json").rows == first.rows
    assert not kept.exists()


def test_profile_shows_the_error_on_other_networks(machine):
    shown = invoke("profile", *QUICK).output

    assert "282 rows, measured" in shown
    assert "mean error on 10 networks, each by a fit to others" in shown
    assert "use it: nas2edge search --device cpu" in shown


def test_profile_goes_on_unless_told_to_restart(tmp_path, machine):
    (tmp_path / "latency_tables").mkdir()
    partial = tmp_path / "latency_tables" / "cpu.partial"
    partial.write_text(json.dumps({"format": "nas2edge.latency_partial", "version": 1, "context": {}, "visits": {}}))

    refused = invoke("profile", *QUICK, exit_code=2)
    invoke("profile", "--restart", *QUICK)

    assert "start over with --restart" in refused.stderr


def test_profile_estimates_known_devices(tmp_path):
    shown = invoke("profile", "--device", "jetson-orin-nano", "--estimate", "--out", "orin.json").output

    table = read_table(tmp_path / "orin.json")
    assert "282 rows, estimated" in shown
    assert "expected error of a network: 25%" in shown
    assert (table.kind, table.device.name) == ("estimated", "orin")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--device", "jetson-orin-nano"], "cannot be measured from here"),
        (["--device", "jetson-orin-nani", "--estimate"], "did you mean 'jetson-orin-nano'"),
        (["--out", "table.txt"], "does not end in .json"),
        (["--out", "nowhere/table.json"], "there is no folder nowhere"),
        (["--space", "tinny"], "unknown space 'tinny'"),
        (["--time-per-row", "5"], "has no unit"),
    ],
)
def test_profile_refuses_what_it_cannot_do(args, message):
    assert message in invoke("profile", *args, exit_code=2).stderr
