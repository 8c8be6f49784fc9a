import subprocess
import sys
from dataclasses import replace

import pytest

from nas2edge import load_space, unique_layers
from nas2edge.device import Device
from nas2edge.errors import FormatError, InputError, TableError, UnknownNameError
from nas2edge.latency import list_tables, load_table, write_table
from nas2edge.latency.registry import find_law, is_shipped, list_aliases, load_law
from tests.latency_fakes import DEVICE, measured_table
from tests.search_spaces import small_space

TABLE = measured_table(unique_layers(small_space()))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def put(folder, name):
    folder.mkdir(exist_ok=True)
    write_table(folder / f"{name}.json", replace(TABLE, device=replace(DEVICE, name=name)))


def test_shipped_tables_are_found_by_name_and_alias():
    table = load_table("jetson")

    assert table.device.name == "jetson-orin-nano"
    assert table.kind == "estimated"
    assert table.digest == load_table("jetson-orin-nano").digest


@pytest.mark.parametrize("name", ["tiny", "attentivenas"])
def test_shipped_estimate_has_a_row_for_every_block(name):
    table = load_table("jetson-orin-nano")

    assert {layer.key for layer in unique_layers(load_space(name))} <= {row.layer.key for row in table.rows}


def test_every_shipped_table_reads():
    assert [entry.error for entry in list_tables()] == ["" for _ in list_tables()]


def test_users_folders_come_first(tmp_path):
    put(tmp_path / "latency_tables", "jetson-orin-nano")
    put(tmp_path / "mine", "board")

    assert load_table("jetson-orin-nano").kind == "measured"
    assert load_table("board", tables=tmp_path / "mine").device.name == "board"
    assert load_table("jetson-orin-nano", tables=tmp_path / "mine").kind == "estimated"
    assert load_table(str(tmp_path / "mine" / "board.json")).device.name == "board"


def test_table_with_the_name_of_an_alias_goes_before_it(tmp_path):
    put(tmp_path / "latency_tables", "jetson")

    assert load_table("jetson").device.name == "jetson"
    assert "jetson" not in list_aliases()


def test_unknown_names_bring_the_nearest():
    with pytest.raises(UnknownNameError, match="'jetson-orin-nao'; did you mean 'jetson-orin-nano'.*nas2edge devices"):
        load_table("jetson-orin-nao")


def test_every_family_has_an_alias():
    assert {load_table(name).device.name for name in ("jetson", "raspberry-pi", "pixel")} == {
        "jetson-orin-nano", "raspberry-pi-4", "pixel-6"
    }  # fmt: skip


def test_aliases_without_their_table_are_not_listed(monkeypatch):
    monkeypatch.setattr("nas2edge.latency.registry.ALIASES", {"watch": ("watch-9", "a test")})

    assert list_aliases() == {}
    with pytest.raises(UnknownNameError, match="unknown device 'watch'"):
        load_table("watch")


def test_laws_are_found_by_the_name_of_their_device():
    assert load_law("raspberry-pi-5").law == find_law("raspberry-pi-5")
    assert find_law("note-10") is None
    assert find_law("nobody") is None
    with pytest.raises(
        UnknownNameError, match="unknown device to estimate 'raspberry-pi-55'; did you mean 'raspberry-"
    ):
        load_law("raspberry-pi-55")


def test_folders_that_do_not_exist_are_named(tmp_path):
    with pytest.raises(InputError, match="--tables .*nowhere is no folder"):
        load_table("jetson", tables=tmp_path / "nowhere")


def test_unreadable_tables_are_listed_with_the_reason(tmp_path):
    (tmp_path / "latency_tables").mkdir()
    (tmp_path / "latency_tables" / "broken.json").write_text("{")

    entry = next(entry for entry in list_tables() if entry.name == "broken")

    assert entry.table is None
    assert "does not parse" in entry.error
    with pytest.raises(FormatError, match="does not parse"):
        load_table("broken")


def test_files_under_another_devices_name_are_refused(tmp_path):
    put(tmp_path / "latency_tables", "board")
    (tmp_path / "latency_tables" / "board.json").rename(tmp_path / "latency_tables" / "other.json")

    with pytest.raises(TableError, match="is of the device 'board'; rename the file to board.json"):
        load_table("other")


def test_devices_check_themselves():
    with pytest.raises(FormatError, match="precision is 'fp8'"):
        replace(DEVICE, precision="fp8")
    with pytest.raises(FormatError, match="threads is 0"):
        replace(DEVICE, threads=0)
    with pytest.raises(FormatError, match=r"device.batch is '1'; expected a whole number"):
        Device.from_dict(DEVICE.to_dict() | {"batch": "1"})
    with pytest.raises(FormatError, match=r"unknown: \['colour'\]"):
        Device.from_dict(DEVICE.to_dict() | {"colour": "red"})
    assert Device.from_dict(DEVICE.to_dict()) == DEVICE


def test_latency_loads_neither_torch_nor_onnx():
    code = "import sys, nas2edge.latency, nas2edge.cli.devices, nas2edge.cli.profile; " \
           "print([name for name in ('torch', 'onnx', 'onnxruntime') if name in sys.modules])"  # fmt: skip

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_tables_that_come_along_are_told_from_the_users_own(tmp_path):
    put(tmp_path, "cpu")

    assert is_shipped("jetson", tables=tmp_path)
    assert not is_shipped("cpu", tables=tmp_path)
    assert not is_shipped(str(tmp_path / "cpu.json"))
    with pytest.raises(UnknownNameError):
        is_shipped("nothing")
