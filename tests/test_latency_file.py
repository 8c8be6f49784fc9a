import json
from dataclasses import replace

import pytest

from nas2edge import load_space, unique_layers
from nas2edge.costs import count_params, peak_activations
from nas2edge.errors import FormatError, TableError
from nas2edge.latency import read_table, write_table
from nas2edge.latency.law import ORIN_NANO, ORIN_NANO_LAW, estimated_table
from nas2edge.latency.table import Calibration, Validation
from nas2edge.latency.table_file import table_to_text
from tests.latency_fakes import measured_table
from tests.search_spaces import small_space

LAYERS = unique_layers(small_space())


def complete_table():
    validation = Validation(space="small", nets=30, mape=1.5, bias=-0.5, within_5=0.9, within_10=1.0, kendall_tau=0.97)
    return replace(
        measured_table(LAYERS),
        calibration=Calibration(overhead_ms=0.25, slope=1.5, cache_mb=8.0, spill_ms_per_mb=0.5, nets=20, rel_rms=0.01),
        validation=(validation,),
        protocol={"tool": "a test", "sessions": 2},
    )


def test_tables_survive_a_file(tmp_path):
    table = complete_table()
    write_table(tmp_path / "toy.json", table)

    read = read_table(tmp_path / "toy.json")

    assert table_to_text(read) == table_to_text(table)
    assert read.digest == table.digest
    assert [row.layer.key for row in read.rows] == [layer.key for layer in LAYERS]
    assert (read.calibration, read.validation, read.device) == (table.calibration, table.validation, table.device)


def test_calibrations_of_large_networks_survive_a_file(tmp_path):
    large = Calibration(overhead_ms=1.5, slope=0.9, cache_mb=8.0, spill_ms_per_mb=0.5, nets=20, rel_rms=0.02)
    table = replace(complete_table(), calibration=Calibration(slope=1.1, cache_mb=8.0, nets=40, large=large))
    write_table(tmp_path / "toy.json", table)

    assert read_table(tmp_path / "toy.json").calibration == table.calibration
    raw = json.loads((tmp_path / "toy.json").read_text())
    raw["calibration"]["large"]["slope"] = "steep"
    (tmp_path / "toy.json").write_text(json.dumps(raw))
    with pytest.raises(TableError, match="calibration.large.slope is 'steep'"):
        read_table(tmp_path / "toy.json")


def test_estimated_tables_keep_their_law(tmp_path):
    space = load_space("tiny")
    table = estimated_table(ORIN_NANO_LAW, ORIN_NANO, LAYERS[:3], date="2026-01-31")
    write_table(tmp_path / "toy.json", table)

    read = read_table(tmp_path / "toy.json")

    assert read.law == ORIN_NANO_LAW
    assert read.row(unique_layers(space)[7]) == table.row(unique_layers(space)[7])


def test_every_row_stands_on_its_own_line():
    lines = table_to_text(measured_table(LAYERS)).splitlines()

    rows = [line for line in lines if line.startswith('    {"op"')]
    assert len(rows) == len(LAYERS)
    assert json.loads(rows[0].rstrip(","))["op"] == "first_conv"


def change_row(name, value):
    def change(raw):
        raw["rows"][2][name] = value

    return change


def change_header(name, value):
    return lambda raw: raw.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (change_header("format", "nas2edge.subnet"), FormatError, "is a 'nas2edge.subnet' file; expected"),
        (change_header("version", 2), FormatError, "has version 2; this nas2edge reads version 1"),
        (change_header("rows", {}), TableError, "rows is {}; expected a list"),
        (change_header("kind", 3), TableError, "kind is 3; expected a text"),
        (change_header("colour", "red"), TableError, r"unknown: \['colour'\]"),
        (change_header("rel_sigma", "small"), TableError, "rel_sigma is 'small'"),
        (change_header("calibration", {"slope": 1.0}), TableError, "calibration is .*; expected an object with"),
        (change_header("validation", 7), TableError, "validation is 7; expected a list"),
        (change_header("device", {"name": "x"}), TableError, "a device has the fields"),
        (change_header("law", {"name": "x"}), TableError, "a law is an object"),
        (change_row("p50", -0.5), TableError, r"toy.json: row 3 \(mbconv hw=.*\): p50 is -0.5; expected a positive"),
        (change_row("p50", 0), TableError, r"row 3 .* p50 is 0; expected a positive"),
        (change_row("min", float("nan")), TableError, r"row 3 .* min is nan; expected a finite number"),
        (change_row("p50", "fast"), TableError, r"row 3 .* p50 is 'fast'"),
        (change_row("in", 16.5), TableError, "row 3: in is 16.5; expected a whole number"),
        (change_row("op", "conv9"), TableError, "row 3: op is 'conv9'; expected one of first_conv"),
        (change_row("skip", "leap"), TableError, "row 3: skip is 'leap'"),
        (change_row("note", "x"), TableError, "row 3: unknown fields 'note'"),
    ],
)
def test_malformed_files_are_refused_with_the_place_and_the_value(tmp_path, change, error, message):
    raw = json.loads(table_to_text(complete_table()))
    change(raw)
    (tmp_path / "toy.json").write_text(json.dumps(raw))

    with pytest.raises(error, match=message):
        read_table(tmp_path / "toy.json")


def test_missing_values_of_rows_are_named(tmp_path):
    raw = json.loads(table_to_text(complete_table()))
    del raw["rows"][0]["p50"]
    (tmp_path / "toy.json").write_text(json.dumps(raw))

    with pytest.raises(TableError, match=r"row 1 \(first_conv .*\): p50 is missing"):
        read_table(tmp_path / "toy.json")


def test_files_that_are_no_json_are_refused(tmp_path):
    (tmp_path / "toy.json").write_text('{"format": ')

    with pytest.raises(FormatError, match="does not parse"):
        read_table(tmp_path / "toy.json")


def test_energy_survives_a_file_and_memory_is_written_beside_it(tmp_path):
    table = complete_table()
    first, *others = table.rows
    write_table(tmp_path / "toy.json", replace(table, rows=(replace(first, energy_mj=1.25), *others)))

    read = read_table(tmp_path / "toy.json")
    raw = json.loads((tmp_path / "toy.json").read_text())["rows"]

    assert (read.rows[0].energy_mj, read.rows[1].energy_mj) == (1.25, None)
    assert (raw[0]["energy_mj"], "energy_mj" in raw[1]) == (1.25, False)
    assert raw[1]["act_kb"] == pytest.approx(peak_activations(LAYERS[1]) * 4 / 1e3)
    assert raw[1]["weights_kb"] == pytest.approx(count_params(LAYERS[1]) * 4 / 1e3)


def test_memory_of_another_precision_is_refused(tmp_path):
    raw = json.loads(table_to_text(complete_table()))
    raw["device"]["precision"] = "fp16"
    (tmp_path / "toy.json").write_text(json.dumps(raw))

    with pytest.raises(TableError, match="row 1 .*act_kb is .*; the block needs .* in fp16 at batch 1"):
        read_table(tmp_path / "toy.json")
