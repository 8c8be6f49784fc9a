"""One example file a rule, made here, and one that no rule objects to."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from nas2edge import load_space, unique_layers
from nas2edge.cli import main
from nas2edge.errors import FormatError, TableError
from nas2edge.latency import list_tables, load_table, write_table
from nas2edge.latency.law import ORIN_NANO, ORIN_NANO_LAW, estimated_table
from nas2edge.latency.lint import lint_document, lint_file, lint_table, refuse_failing
from nas2edge.latency.lint_rules import RULES
from nas2edge.latency.table import TRANSFERRED
from nas2edge.latency.table_file import table_to_text
from tests.latency_fakes import DEVICE, measured_row, measured_table
from tests.search_spaces import small_space

LAYERS = unique_layers(small_space())
BOARD = replace(DEVICE, name="board", runtime_version="1.0", clocks="2.0 GHz, pinned", threads=1)
GOOD = replace(measured_table(LAYERS), device=BOARD)
OTHER = replace(
    measured_table(LAYERS),
    device=replace(BOARD, name="other"),
    rows=tuple(measured_row(layer, 0.0123456 * (7 + i)) for i, layer in enumerate(LAYERS)),
)


def document(change=lambda raw: None, *, table=GOOD):
    raw = json.loads(table_to_text(table))
    change(raw)
    return raw


def scale_rows(factor, *, number=None):
    def change(raw):
        for i, row in enumerate(raw["rows"]):
            if number is None or i == number:
                row.update({name: row[name] * factor for name in ("min", "p10", "p50", "p90", "std")})

    return change


def set_row(number, **values):
    return lambda raw: raw["rows"][number].update(values)


def reverse(raw):
    """The smallest block gets the longest latency."""
    by_time = sorted(raw["rows"], key=lambda row: row["p50"])
    for row, p50 in zip(by_time, [row["p50"] for row in reversed(by_time)], strict=True):
        row.update(p50=p50, min=p50, p10=p50, p90=p50)


def shrink_larger_kernels(raw):
    for row in raw["rows"]:
        if row.get("k") == 5:
            row.update({name: row[name] * 0.5 for name in ("min", "p10", "p50", "p90", "std")})


def whole_milliseconds(raw):
    for row in raw["rows"]:
        p50 = 1.0 + round(100 * row["p50"])
        row.update(min=p50, p10=p50, p50=p50, p90=p50)


def copy_values(raw):
    for row, source in zip(raw["rows"][:4], json.loads(table_to_text(OTHER))["rows"], strict=False):
        row.update({name: source[name] for name in ("min", "p10", "p50", "p90", "std")})


EXAMPLES = {
    "N2E-L001": ("error", set_row(3, p50=-0.5), "p50 is -0.5 ms; a latency is a positive number"),
    "N2E-L002": ("error", set_row(3, p90=0.001), "min, p10, p50, p90 are"),
    "N2E-L003": ("error", scale_rows(1e-5, number=2), "of the device's peak of 160 GMAC/s"),
    "N2E-L004": ("error", shrink_larger_kernels, "latency falls as the kernel size grows in "),
    "N2E-L005": ("error", reverse, "the rank correlation of latency with MACs is -"),
    "N2E-L006": ("error", copy_values, f"4 of {len(LAYERS)} shared rows equal those of 'other' to the last digit"),
    "N2E-L007": ("warning", scale_rows(1.96), "times those of 'twin', all of them"),
    "N2E-L008": ("error", scale_rows(1e3), "these may be microseconds"),
    "N2E-L009": ("warning", set_row(5, std=1.0), "std / p50 is "),
    "N2E-L010": ("warning", set_row(5, n=7), f"1 of {len(LAYERS)} rows state fewer than 20 runs, such as 7"),
    "N2E-L011": ("error", scale_rows(15.0, number=4), "where rows like it mean about"),
    "N2E-L012": ("warning", whole_milliseconds, f"{len(LAYERS)} of {len(LAYERS)} latencies are whole milliseconds"),
    "N2E-L013": ("warning", lambda raw: raw["device"].update(clocks=""), "not stated: device.clocks"),
}
TWIN = replace(GOOD, device=replace(BOARD, name="twin"))


def test_every_rule_has_an_example():
    assert [rule.id for rule in RULES] == sorted(EXAMPLES)


def test_a_good_table_has_no_findings():
    report = lint_document(document(), others=[OTHER])

    assert report.findings == ()
    assert report.skipped == {}


@pytest.mark.parametrize("rule", EXAMPLES)
def test_each_rule_finds_its_example(rule):
    severity, change, message = EXAMPLES[rule]
    others = [TWIN] if rule == "N2E-L007" else [OTHER]

    found = [finding for finding in lint_document(document(change), others=others).findings if finding.rule == rule]

    assert found, rule
    assert {finding.severity for finding in found} == {severity}
    assert message in found[0].message
    assert found[0].advice


def test_units_in_seconds_are_recognised():
    found = lint_document(document(scale_rows(1e-4)), others=[]).findings

    assert any(finding.rule == "N2E-L008" and "these may be seconds" in finding.message for finding in found)


def test_one_row_in_another_unit_is_recognised():
    found = lint_document(document(scale_rows(1e3, number=6)), others=[]).findings

    (unit,) = [finding for finding in found if finding.rule == "N2E-L008"]
    assert unit.row == LAYERS[6].key
    assert "1000 times off" in unit.message


def test_a_single_fall_within_many_pairs_is_a_warning():
    at = next(i for i, layer in enumerate(LAYERS) if layer.kernel_size == 5 and layer.op == "mbconv")

    found = lint_document(document(scale_rows(0.6, number=at)), others=[]).findings

    assert {finding.severity for finding in found if finding.rule == "N2E-L004"} == {"warning"}


def test_scaled_copies_that_say_so_are_no_other_version():
    rows = tuple(replace(row, status=TRANSFERRED, p50=1.5 * row.p50, n=0, min=None, p10=None, p90=None, std=None)
                 for row in GOOD.rows)  # fmt: skip

    found = lint_document(document(table=replace(GOOD, rows=rows, kind="derived")), others=[TWIN]).findings

    assert "N2E-L007" not in {finding.rule for finding in found}


def test_what_cannot_be_checked_is_named():
    lonely = replace(GOOD, device=replace(BOARD, threads=None), rows=GOOD.rows[:2])

    skipped = lint_table(lonely).skipped

    assert skipped["N2E-L003"] == "the device's arithmetic peak is not known"
    assert skipped["N2E-L005"] == "fewer than 12 rows"
    assert skipped["N2E-L006"] == "no other tables to compare with"


def test_documents_of_any_shape_are_linted():
    raw = {"format": "nas2edge.latency_table", "version": 1, "device": 3, "rows": [1, {"op": "x"}, {"p50": "fast"}]}

    (finding,) = [finding for finding in lint_document(raw).findings if finding.severity == "error"]

    assert finding.rule == "N2E-L002"


def test_laws_without_rows_are_linted():
    table = replace(estimated_table(ORIN_NANO_LAW, ORIN_NANO, [], date="2026-01-31"))

    assert lint_table(table).errors == ()


@pytest.mark.parametrize("name", [entry.name for entry in list_tables()])
def test_no_shipped_table_has_errors(name):
    others = [entry.table for entry in list_tables() if entry.name != name and entry.table is not None]

    assert lint_table(load_table(name), others=others).errors == ()


def test_files_of_another_format_are_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"format": "nas2edge.subnet", "version": 1}')

    with pytest.raises(FormatError, match="expected 'nas2edge.latency_table'"):
        lint_file(tmp_path / "x.json")


def test_searching_with_a_failing_table_is_refused_unless_forced():
    rows = tuple(replace(row, min=1.0, p10=1.0, p50=1.0, p90=1.0) if i < 2 else row for i, row in enumerate(GOOD.rows))
    failing = replace(GOOD, rows=rows)

    with pytest.raises(TableError, match="the latency table 'board' fails lint: N2E-L011 .*force"):
        refuse_failing(failing)
    assert {finding.rule for finding in refuse_failing(failing, force=True)} == {"N2E-L011"}
    assert refuse_failing(GOOD) == ()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.json").write_text(json.dumps(document()))
    (tmp_path / "bad.json").write_text(json.dumps(document(EXAMPLES["N2E-L001"][1])))
    return tmp_path


def test_command_ends_with_2_only_on_errors(folder):
    good = CliRunner().invoke(main, ["tables", "lint", "good.json"])
    bad = CliRunner().invoke(main, ["tables", "lint", "bad.json"])

    assert (good.exit_code, bad.exit_code) == (0, 2)
    assert "good.json: 0 errors, 0 warnings" in good.output
    assert "error N2E-L001: mbconv hw=" in bad.output
    assert "to do: measure these rows again" in bad.output


def test_command_shows_three_rows_of_a_rule_and_counts_the_others(folder):
    def vary(raw):
        for row in raw["rows"][:8]:
            row["std"] = 1.0

    (folder / "noisy.json").write_text(json.dumps(document(vary)))

    result = CliRunner().invoke(main, ["tables", "lint", "noisy.json"])

    assert result.exit_code == 0
    assert result.output.count("warning N2E-L009") == 3
    assert "and 5 more like these; --json lists all of them" in result.output
    assert "0 errors, 8 warnings" in result.output


def test_command_as_json(folder):
    result = CliRunner().invoke(main, ["tables", "lint", "bad.json", "--json"])

    shown = json.loads(result.stdout)
    assert (result.exit_code, shown["format"], shown["device"]) == (2, "nas2edge.lint", "board")
    assert [finding["rule"] for finding in shown["findings"]] == ["N2E-L001", "N2E-L002"]


def test_the_search_refuses_failing_tables_of_the_user_unless_forced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = replace(measured_table(unique_layers(load_space("attentivenas"))), device=replace(DEVICE, name="board"))
    slow = replace(table.rows[0], min=10.0, p10=10.0, p50=10.0, p90=10.0)
    write_table(tmp_path / "board.json", replace(table, rows=(slow, *table.rows[1:])))
    command = ["search", "--space", "attentivenas", "--device", "board", "--tables", ".", "--latency", "100ms",
               "--evaluations", "200"]  # fmt: skip

    refused = CliRunner().invoke(main, command)
    forced = CliRunner().invoke(main, [*command, "--force-table"])

    assert refused.exit_code == 2
    assert "the latency table 'board' fails lint: N2E-L011" in refused.stderr
    assert "--force-table" in refused.stderr
    assert forced.exit_code == 0
    assert "warning: the latency table 'board' fails lint and is used all the same: N2E-L011" in forced.stderr
