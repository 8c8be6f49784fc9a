"""subnet.json: what is needed, what comes back, what is refused."""

import json
from dataclasses import replace

import pytest

import nas2edge
from nas2edge.errors import FormatError, SpaceError, SubnetError, UnknownNameError
from nas2edge.spaces import load_space
from nas2edge.subnet_file import SubnetFile, read_subnet, write_subnet

TINY = load_space("tiny")
LEAST = {"format": "nas2edge.subnet", "version": 1, "space": "tiny", "subnet": TINY.smallest().to_dict()}


def write(folder, **changes):
    path = folder / "subnet.json"
    path.write_text(json.dumps({**LEAST, **changes}))
    return path


def test_four_entries_are_enough(tmp_path):
    file = read_subnet(write(tmp_path))

    assert file == SubnetFile(space=TINY, subnet=TINY.smallest())


def test_a_file_comes_back_as_it_was_written(tmp_path):
    file = SubnetFile(
        space=TINY,
        subnet=TINY.largest(),
        supernet={"source": "builtin:tiny", "sha256": "ab"},
        device="jetson-orin-nano",
        constraints={"latency_ms": 20.0},
        predicted={"latency_ms": 1.5, "accuracy": 80.0},
    )
    write_subnet(tmp_path / "s.json", file)

    assert read_subnet(tmp_path / "s.json") == file


def test_a_named_space_is_written_by_name_and_another_in_full(tmp_path):
    mine = replace(TINY, num_classes=3)
    write_subnet(tmp_path / "a.json", SubnetFile(space=TINY, subnet=TINY.smallest()))
    write_subnet(tmp_path / "b.json", SubnetFile(space=mine, subnet=mine.smallest()))

    assert json.loads((tmp_path / "a.json").read_text())["space"] == "tiny"
    assert read_subnet(tmp_path / "b.json").space == mine


def test_a_written_file_says_what_it_is_and_who_wrote_it(tmp_path):
    write_subnet(tmp_path / "s.json", SubnetFile(space=TINY, subnet=TINY.smallest()))

    raw = json.loads((tmp_path / "s.json").read_text())
    assert {name: raw[name] for name in ("format", "version", "id", "tool")} == {
        "format": "nas2edge.subnet",
        "version": 1,
        "id": TINY.smallest().id,
        "tool": {"nas2edge": nas2edge.__version__},
    }


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"format": "nas2edge.bundle"}, FormatError, "is a 'nas2edge.bundle' file"),
        ({"space": "tny"}, UnknownNameError, "unknown space 'tny'"),
        ({"subnet": {**TINY.smallest().to_dict(), "resolution": 7}}, SubnetError, "resolution is 7"),
        ({"space": {**TINY.to_dict(), "num_classes": 0}}, SpaceError, r"subnet\.json: num_classes is 0"),
        ({"space": 5}, UnknownNameError, "unknown space '5'"),
        ({"subnet": {"depth": [1]}}, SubnetError, r"subnet\.json: a sub-network has the fields .* missing"),
        ({"device": ["pixel"]}, FormatError, r"'device' is \['pixel'\]; expected a name"),
        ({"version": 2}, FormatError, "has version 2; this nas2edge reads version 1"),
        ({"predicted": [1]}, FormatError, r"'predicted' is \[1\]; expected an object"),
    ],
)
def test_a_wrong_entry_is_told(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        read_subnet(write(tmp_path, **changes))


def test_a_missing_entry_is_named(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"format": "nas2edge.subnet", "version": 1, "space": "tiny"}))

    with pytest.raises(FormatError, match="lacks 'subnet'; a subnet.json needs space and subnet"):
        read_subnet(tmp_path / "s.json")
