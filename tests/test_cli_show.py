"""nas2edge show: spaces and sub-networks, for people and as JSON."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nas2edge import SubnetConfig, count, load_space, plan
from nas2edge.cli import main
from nas2edge.subnet_file import SubnetFile, write_subnet


def _show(*args: str) -> Result:
    return CliRunner().invoke(main, ["show", *args], catch_exceptions=False, env={"COLUMNS": "100"})


def test_a_space_is_shown_with_its_choices_and_ranges() -> None:
    output = _show("--space", "attentivenas").stdout

    assert "192, 200, 208, 216" in output
    assert "3-8" in output
    assert "sub-networks: 440,301,256,704 (4.4e+11)" in output
    assert "MACs: 203.4M to 1.939G" in output
    assert "parameters: 8.954M to 23.4M" in output


def test_a_space_as_json_has_exact_ranges() -> None:
    shown = json.loads(_show("--space", "attentivenas", "--json").stdout)

    assert shown["macs"] == {"least": 203_389_568, "greatest": 1_939_335_808}
    assert shown["params"] == {"least": 8_954_184, "greatest": 23_404_080}
    assert shown["size"] == 440_301_256_704


def test_a_subnet_is_shown_layer_by_layer_with_its_total() -> None:
    space = load_space("tiny")
    costs = count(plan(space, space.largest()))

    shown = json.loads(_show("--subnet", "largest", "--json").stdout)
    output = _show("--subnet", "largest").stdout

    assert (shown["macs"], shown["params"]) == (costs.macs, costs.params)
    assert sum(layer["macs"] for layer in shown["layers"]) == costs.macs
    assert shown["layers"][0]["input"] == [3, 32, 32]
    assert shown["layers"][-1]["output"] == [10]
    assert "stages.4.blocks.1" in output
    assert "11.36M" in output


def test_a_subnet_file_brings_its_space(tmp_path: Path) -> None:
    space = load_space("attentivenas")
    write_subnet(tmp_path / "subnet.json", SubnetFile(space=space, subnet=space.smallest()))

    shown = json.loads(_show("--subnet", str(tmp_path / "subnet.json"), "--json").stdout)

    assert (shown["space"], shown["macs"]) == ("attentivenas", 203_389_568)
    assert SubnetConfig.from_dict(shown["subnet"]) == space.smallest()


def _outside(path: Path) -> None:
    raw = load_space("tiny").smallest().to_dict() | {"resolution": 30}
    path.write_text(json.dumps({"format": "nas2edge.subnet", "version": 1, "space": "tiny", "subnet": raw}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "does not parse"),
        ('{"format": "nas2edge.subnet", "version": 1}', "lacks 'space' and 'subnet'"),
        ('{"format": "nas2edge.pareto", "version": 1}', "expected 'nas2edge.subnet'"),
        (None, "resolution is 30, expected one of 24, 28, 32"),
    ],
)
def test_a_subnet_file_that_cannot_be_used_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "subnet.json"
    if content is None:
        _outside(path)
    else:
        path.write_text(content)

    result = _show("--subnet", str(path))

    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--space", "attentivenass"], "unknown space 'attentivenass'; did you mean 'attentivenas'"),
        (["--space", "tiny", "--supernet", "builtin:tiny"], "exclude each other"),
        (["--subnet", "missing.json"], "cannot read missing.json"),
    ],
)
def test_mistakes_end_with_exit_code_2_and_one_line(args: list[str], message: str) -> None:
    result = _show(*args)

    assert result.exit_code == 2
    assert message in result.stderr


def test_a_subnet_of_another_space_is_refused(tmp_path: Path) -> None:
    space = load_space("tiny")
    write_subnet(tmp_path / "subnet.json", SubnetFile(space=space, subnet=space.smallest()))

    result = _show("--space", "attentivenas", "--subnet", str(tmp_path / "subnet.json"))

    assert result.exit_code == 2
    assert "width has 7 entries; space 'attentivenas' has 9" in result.stderr
