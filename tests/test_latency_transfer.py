"""Transferred tables, with devices whose laws are known: the scales come out, and so does the error."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from nas2edge import unique_layers
from nas2edge.cli import main
from nas2edge.errors import TableError
from nas2edge.latency import read_table, write_table
from nas2edge.latency.law import ORIN_NANO, ORIN_NANO_LAW, estimated_table
from nas2edge.latency.transfer import BY_PART, ONE, transfer
from tests.latency_fakes import DEVICE, measured_row, measured_table
from tests.search_spaces import small_space

LAYERS = unique_layers(small_space())
NEIGHBOUR = measured_table(LAYERS)
SAMPLE = np.random.default_rng(0).choice(len(LAYERS), 20, replace=False).tolist()
BOARD = replace(DEVICE, name="board", clocks="1 GHz")
LAW = estimated_table(ORIN_NANO_LAW, ORIN_NANO, [], date="2026-01-31")


def measured_on_board(ms_of, *, sample=SAMPLE):
    rows = tuple(measured_row(LAYERS[i], ms_of(LAYERS[i])) for i in sample)
    return replace(NEIGHBOUR, device=BOARD, rows=rows, licence="MIT")


def moved(neighbour, measured, **kwargs):
    return transfer(neighbour, measured, name="new", date="2026-01-31", **kwargs)


def test_one_factor_is_found_and_leaves_no_error():
    result = moved(NEIGHBOUR, measured_on_board(lambda layer: 1.7 * NEIGHBOUR.row(layer).ms))

    assert result.scheme == ONE
    assert list(result.scales.values()) == pytest.approx([1.7] * 4)
    assert result.rms[ONE] == pytest.approx(0.0, abs=1e-12)
    assert {row.layer.key: row.p50 for row in result.table.rows} == pytest.approx(
        {row.layer.key: 1.7 * row.p50 for row in NEIGHBOUR.rows}
    )


def test_measured_rows_stay_and_the_others_say_transferred():
    table = moved(NEIGHBOUR, measured_on_board(lambda layer: 1.7 * NEIGHBOUR.row(layer).ms)).table

    statuses = {row.layer.key: row.status for row in table.rows}
    assert (table.kind, table.device.name, table.device.clocks) == ("derived", "new", "1 GHz")
    assert len(statuses) == len(LAYERS)
    assert {statuses[LAYERS[i].key] for i in SAMPLE} == {"measured"}
    assert list(statuses.values()).count("transferred") == len(LAYERS) - 20
    assert table.licence == "MIT AND Apache-2.0"
    assert table.protocol["neighbour_digest"] == NEIGHBOUR.digest


def test_parts_get_factors_of_their_own_where_they_differ():
    one_rate = replace(ORIN_NANO_LAW, launch_us=0.5, pointwise_gmac_s=5.0, depthwise_gmac_s=5.0)
    neighbour = estimated_table(one_rate, ORIN_NANO, [], date="2026-01-31")
    board = replace(one_rate, depthwise_gmac_s=1.0)

    result = moved(neighbour, measured_on_board(board.layer_ms), layers=LAYERS)
    off = [row.p50 / board.layer_ms(row.layer) - 1.0 for row in result.table.rows]

    assert result.scheme == BY_PART
    assert result.rms[BY_PART] < 0.9 * result.rms[ONE]
    assert result.scales["depthwise"] > 3 * result.scales["convolutions"]
    assert np.sqrt(np.mean(np.square(off))) < result.table.rel_sigma


def test_sigma_is_the_error_of_rows_left_out():
    rng = np.random.default_rng(1)
    noise = {layer.key: float(np.exp(0.1 * rng.standard_normal())) for layer in LAYERS}
    measured = measured_on_board(lambda layer: NEIGHBOUR.row(layer).ms * noise[layer.key])

    result = moved(NEIGHBOUR, measured)
    errors = [row.p50 / (NEIGHBOUR.row(row.layer).ms * noise[row.layer.key]) - 1.0 for row in result.table.rows
              if row.status == "transferred"]  # fmt: skip

    sigma = result.table.rel_sigma
    assert sigma == pytest.approx(result.rms[result.scheme])
    assert sigma == pytest.approx(np.sqrt(np.mean(np.square(list(result.errors.values())))))
    # 10 % noise, seen through 20 rows; 68 % of 112 rows within it, give or take three deviations of a binomial
    assert 0.06 < sigma < 0.16
    assert 0.5 < np.mean(np.abs(errors) <= sigma) < 0.95


def test_too_few_rows_in_common_are_refused():
    with pytest.raises(TableError, match="9 measured rows of 'board' are blocks that 'toy' knows; .* needs 10"):
        moved(NEIGHBOUR, measured_on_board(lambda layer: 1.0, sample=SAMPLE[:9]))


def test_laws_need_to_be_told_which_blocks():
    with pytest.raises(TableError, match="is a law without rows; name the space to transfer with --space"):
        moved(LAW, measured_on_board(LAW.law.layer_ms))


def test_blocks_that_the_neighbour_does_not_know_are_named():
    other = replace(LAYERS[5], act="relu")
    measured = measured_on_board(lambda layer: NEIGHBOUR.row(layer).ms)
    measured = replace(measured, rows=(*measured.rows, measured_row(other, 1.0)))

    result = moved(NEIGHBOUR, measured)

    assert result.unanswered == (other.key,)
    assert other.key in {row.layer.key for row in result.table.rows}


def test_command_writes_the_table_and_says_how_far_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "toy.json", NEIGHBOUR)
    measured = measured_on_board(lambda layer: 1.7 * NEIGHBOUR.row(layer).ms)
    write_table(tmp_path / "board.json", replace(measured, device=replace(BOARD, threads=2)))

    result = CliRunner().invoke(main, ["tables", "transfer", "toy.json", "board.json", "--out", "new.json", "--json"])

    shown = json.loads(result.stdout)
    assert result.exit_code == 0
    assert read_table(tmp_path / "new.json").device.name == "new"
    assert (shown["scheme"], shown["kind"], shown["rows"]) == (ONE, "derived", len(LAYERS))
    assert "20 measured rows, each left out: 0.0%" in result.stderr
    assert "warning: the devices differ in threads: None there, 2 here" in result.stderr


def test_command_takes_spaces_for_laws_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = "tiny"
    from nas2edge import load_space

    blocks = unique_layers(load_space(tiny))[::20]
    rows = tuple(measured_row(layer, 2.0 * ORIN_NANO_LAW.layer_ms(layer)) for layer in blocks)
    write_table(tmp_path / "board.json", replace(NEIGHBOUR, device=BOARD, rows=rows))
    args = ["tables", "transfer", "jetson-orin-nano", "board.json", "--space", tiny]

    result = CliRunner().invoke(main, [*args, "--out", "new.json"])
    refused = CliRunner().invoke(main, [*args, "--out", "new.txt"])

    assert result.exit_code == 0, result.output
    assert "one scale: launches x 2" in result.output
    assert refused.exit_code == 2
    assert "does not end in .json" in refused.stderr
