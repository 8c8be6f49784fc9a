"""nas2edge report: the page is written whole or not at all, and says what it could not show."""

import json
from pathlib import Path

import pytest

from nas2edge.cli import main
from nas2edge.latency.table_file import write_table
from tests.report_cases import document, table

BOARD = table("board")


@pytest.fixture
def front(tmp_path: Path) -> Path:
    path = tmp_path / "pareto.json"
    path.write_text(json.dumps(document([BOARD])))
    (tmp_path / "tables").mkdir()
    write_table(tmp_path / "tables" / "board.json", BOARD)
    return path


def test_the_page_is_written_with_the_milliseconds_of_every_block(front, tmp_path, runner):
    result = runner.invoke(
        main, ["report", str(front), "--out", str(tmp_path / "r.html"), "--tables", str(tmp_path / "tables")]
    )

    assert result.exit_code == 0, result.output
    assert "note" not in result.stdout
    assert f"wrote: {tmp_path / 'r.html'}" in result.stdout
    assert '"rows":[[1.0,0.1,0]' in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_table_that_is_not_found_is_noted(front, tmp_path, runner):
    result = runner.invoke(main, ["report", str(front), "--out", str(tmp_path / "r.html")])

    assert result.exit_code == 0, result.output
    assert "note: board: its latency table was not at hand" in result.stdout


def test_json_is_one_object(front, tmp_path, runner):
    out = tmp_path / "r.html"
    result = runner.invoke(main, ["report", str(front), "--out", str(out), "--json"])

    printed = json.loads(result.stdout)
    assert printed["format"] == "nas2edge.report"
    assert (printed["report"], printed["points"]) == (str(out), 4)
    assert printed["size_bytes"] == out.stat().st_size
    assert list(printed["notes"]) == ["board"]


def test_the_command_to_go_on_names_the_file_that_was_written(front, tmp_path, runner):
    out = tmp_path / "r.html"
    runner.invoke(main, ["report", str(front), "--out", str(out), "--subnet", "pi.json"])

    text = out.read_text(encoding="utf-8")
    assert '"file":"pi.json"' in text
    assert '"export":{"weights":true,"command":""}' in text


def test_another_file_is_refused_and_nothing_is_written(tmp_path, runner):
    (tmp_path / "subnet.json").write_text('{"format": "nas2edge.subnet", "version": 1}')
    result = runner.invoke(main, ["report", str(tmp_path / "subnet.json"), "--out", str(tmp_path / "r.html")])

    assert result.exit_code == 2
    assert "is a 'nas2edge.subnet' file; expected 'nas2edge.pareto'" in result.stderr
    assert not (tmp_path / "r.html").exists()
