"""Files of many sub-networks, and their accuracies by one command."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nas2edge.cli import main
from nas2edge.errors import FormatError, SubnetError
from nas2edge.space import SubnetConfig
from nas2edge.spaces import load_space
from nas2edge.subnet_file import read_subnets
from nas2edge.train.processes import ALONE, gather

SPACE = load_space("tiny")
ENDS = [SPACE.smallest(), SPACE.largest()]


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_lines_and_fronts_are_read_each_subnet_once(tmp_path):
    small, large = (subnet.to_dict() for subnet in ENDS)
    lines = write_lines(tmp_path / "a.jsonl", {"subnet": large, "accuracy": 1.0}, small, {"subnet": large})
    front = {"format": "nas2edge.pareto", "version": 1, "points": [{"id": "x", "subnet": small}]}
    (tmp_path / "pareto.json").write_text(json.dumps(front))

    assert read_subnets(lines, SPACE) == ENDS[::-1]
    assert read_subnets(tmp_path / "pareto.json", SPACE) == ENDS[:1]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", FormatError, "holds no sub-network"),
        ("{\n", FormatError, "line 1 does not parse as JSON"),
        ("3\n", SubnetError, "line 1"),
        ('{"subnet": {"resolution": 32}}\n', SubnetError, "line 1"),
    ],
)
def test_what_a_file_lacks_is_said(tmp_path, text, error, said):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(error, match=said):
        read_subnets(tmp_path / "a.jsonl", SPACE)


def test_a_member_of_another_space_is_refused_with_its_line(tmp_path):
    other = SubnetConfig.from_dict({**ENDS[0].to_dict(), "resolution": 33})
    lines = write_lines(tmp_path / "a.jsonl", ENDS[0].to_dict(), other.to_dict())
    with pytest.raises(SubnetError, match="line 2: .*33"):
        read_subnets(lines, SPACE)


def test_a_missing_file_and_a_front_without_points(tmp_path):
    with pytest.raises(FormatError, match="cannot read .*: No such file"):
        read_subnets(tmp_path / "none.jsonl", SPACE)
    (tmp_path / "pareto.json").write_text('{"format": "nas2edge.pareto", "version": 1}')
    with pytest.raises(FormatError, match="no list of 'points'"):
        read_subnets(tmp_path / "pareto.json", SPACE)


def test_the_command_measures_all_of_a_file(tmp_path):
    lines = write_lines(tmp_path / "a.jsonl", *(subnet.to_dict() for subnet in ENDS[:1]))
    result = CliRunner().invoke(main, ["evaluate", "--subnets", str(lines), "--threads", "1", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [row["subnet"] for row in found["subnets"]] == [ENDS[0].to_dict()]
    assert found["processes"] == 1 and found["seconds"] > 0


def test_a_lone_process_gathers_its_own():
    assert gather([1, 2], ALONE) == [1, 2]
