"""Devices without Python: packs, tools' outputs, results, ssh; with stand-ins that print what the real tools print."""

import json
import os
import shutil
import stat
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from nas2edge.cli import main
from nas2edge.errors import FormatError, InputError, RuntimeFailedError
from nas2edge.latency import read_table
from nas2edge.latency.ingest import ingest
from nas2edge.latency.measure import Request
from nas2edge.latency.pack import FOLDER, packed_items, write_pack
from nas2edge.latency.remote import measure_by_ssh
from nas2edge.latency.table import INTERPOLATED, MEASURED
from nas2edge.latency.tools import TOOLS, ToolTimes, check_tool
from tests import device_tools
from tests.search_spaces import small_space

SPACE = replace(small_space(), resolution=(16,))
REQUEST = Request(spaces=(SPACE,), date="2026-01-31", nets=10)


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    for tool in ("trtexec", "benchncnn"):
        write_pack(folder / f"{tool}.tar.gz", REQUEST, tool=TOOLS[tool], precision="fp32", threads=1)
    return folder


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A folder with the stand-ins in PATH."""
    (tmp_path / "bin").mkdir()
    device_tools.install(tmp_path / "bin", *device_tools.TOOLS)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def run(device, pack, **environment):
    with tarfile.open(pack) as archive:
        archive.extractall(device, filter="data")
    return subprocess.run(["sh", FOLDER + "/run.sh"], cwd=device, capture_output=True, text=True,
                          env=os.environ | environment)  # fmt: skip


def test_equal_requests_give_equal_packs(packs, tmp_path):
    write_pack(tmp_path / "x.tar.gz", REQUEST, tool=TOOLS["trtexec"], precision="fp32", threads=1)

    assert (tmp_path / "x.tar.gz").read_bytes() == (packs / "trtexec.tar.gz").read_bytes()


def test_packs_hold_every_model_and_two_orders_with_a_reference(packs):
    items, nets = packed_items(REQUEST)
    with tarfile.open(packs / "trtexec.tar.gz") as archive:
        names = archive.getnames()
        order = archive.extractfile(f"{FOLDER}/order.txt").read().decode().splitlines()
        model = onnx.load_from_string(archive.extractfile(f"{FOLDER}/models/{items[5].name}.onnx").read())
        script = archive.extractfile(f"{FOLDER}/run.sh").read().decode()

    assert len(nets) == 10
    assert {f"{FOLDER}/models/{packed.name}.onnx" for packed in items} < set(names)
    onnx.checker.check_model(model, full_check=True)
    visited = [line.split()[1] for line in order]
    assert all(visited.count(packed.name) == 2 for packed in items[1:])
    assert visited[0] == visited[-1] == "reference"
    assert visited.count("reference") >= len(order) // 21
    assert "trtexec --onnx" in script
    assert "@" not in "".join(line for line in script.splitlines() if "nas2edge" not in line).replace("$@", "")


def expected_us(pack, name, suffix):
    with tarfile.open(pack) as archive:
        return 200 + archive.getmember(f"{FOLDER}/models/{name}{suffix}").size % 100000 // 100


@pytest.mark.parametrize(("tool", "suffix"), [("trtexec", ".onnx"), ("benchncnn", ".param")])
def test_results_become_a_table_as_if_measured_here(device, packs, tool, suffix):
    pack = packs / f"{tool}.tar.gz"

    done = run(device, pack)
    found = ingest(device / FOLDER / "results.tar.gz", [SPACE], name="board", date="2026-02-01")

    assert done.returncode == 0, done.stderr
    table = found.table
    assert found.failed == {}
    assert {row.layer.key for row in table.rows} == set(REQUEST.blocks)
    assert {row.status for row in table.rows} == {MEASURED}
    assert (table.device.name, table.device.runtime) == ("board", TOOLS[tool].runtime)
    assert table.protocol["measured_rows"] == len(REQUEST.blocks)
    assert "reference_ms" not in table.protocol  # a tool's figure, not to be compared with one of ours
    # What a tool does not tell is left out, not made up.
    assert all(row.p10 is row.std is None and (row.p90 is None) == (tool == "benchncnn") for row in table.rows)
    assert table.protocol["figures"] == ("mean, min" if tool == "benchncnn" else "median, min, p90")
    names = {packed.item.id: packed.name for packed in packed_items(REQUEST)[0]}
    row = next(row for row in table.rows if row.layer.op == "mbconv" and row.layer.stride == 1)
    shapes = [
        f"border hw={row.layer.hw_in} chs={row.layer.in_chs}",
        f"border hw={row.layer.hw_out} chs={row.layer.out_chs}",
    ]
    block, *ends = [expected_us(pack, names[key], suffix) for key in (row.layer.key, *shapes)]
    expected = max(0.2 * block, block - sum(ends) / 2) / 1e3
    assert row.p50 == pytest.approx(expected, abs=0.012 if tool == "benchncnn" else 0.002)
    if tool == "benchncnn":  # two digits behind the point: an error of 3 us
        assert row.rel_sigma >= 0.0028 / row.p50


def test_interrupted_scripts_go_on_and_failures_are_named(device, packs, tmp_path):
    pack = packs / "trtexec.tar.gz"
    broken = packed_items(REQUEST)[0][3]
    calls = tmp_path / "calls"

    run(device, pack, BROKEN=broken.name, CALLS=str(calls))
    first = len(calls.read_text().splitlines())
    results = sorted((device / FOLDER / "results").glob("0000*-s0-i*.txt"))[:5]
    for result in results:
        result.unlink()
    subprocess.run(["sh", FOLDER + "/run.sh"], cwd=device, capture_output=True, check=True,
                   env=os.environ | {"CALLS": str(calls)})  # fmt: skip
    found = ingest(device / FOLDER / "results.tar.gz", [SPACE], name="board", date="2026-02-01")

    assert len(calls.read_text().splitlines()) == first + 5
    assert list(found.failed) == [broken.item.id]
    assert "engine failed" in found.failed[broken.item.id]
    assert [row.status for row in found.table.rows if row.layer.key == broken.item.id] == [INTERPOLATED]


def test_scripts_without_their_tool_say_so(packs, tmp_path):
    done = run(tmp_path, packs / "benchncnn.tar.gz", PATH="/usr/bin:/bin")

    assert done.returncode == 2
    assert "there is no benchncnn in PATH" in done.stderr


def test_energy_comes_from_sensors_alone(device, packs):
    run(device, packs / "trtexec.tar.gz")
    results = device / FOLDER / "results"
    name = next(packed.name for packed in packed_items(REQUEST)[0][1:] if "mbconv" in packed.item.id)
    for path in results.glob(f"*-{name}.txt"):
        path.write_text("power_mw: " + "1000 " * 6 + "5000 " * 6 + "\n" + path.read_text())

    table = ingest(results, [SPACE], name="board", date="2026-02-01").table

    (row,) = [row for row in table.rows if row.energy_mj is not None]
    assert row.energy_mj == pytest.approx(5.0 * row.p50)  # 5 W for so many milliseconds


def test_results_of_something_else_are_refused(device, packs, tmp_path):
    run(device, packs / "benchncnn.tar.gz")
    results = device / FOLDER / "results"

    with pytest.raises(FormatError, match="no manifest.json of a pack"):
        ingest(packs / "trtexec.tar.gz", [SPACE], name="board", date="2026-02-01")
    with pytest.raises(FormatError, match="other definitions of its spaces"):
        ingest(results, [replace(SPACE, num_classes=7)], name="board", date="2026-02-01")
    system = results / "system-start.txt"
    system.write_text(system.read_text() + "features: Features : fp asimd asimdhp\n")
    with pytest.raises(FormatError, match="benchncnn computed in float16.*--precision fp16"):
        ingest(results, [SPACE], name="board", date="2026-02-01")
    (tmp_path / "no.tar.gz").write_bytes(b"no archive")
    with pytest.raises(FormatError, match="expected the results.tar.gz of a pack"):
        ingest(tmp_path / "no.tar.gz", [SPACE], name="board", date="2026-02-01")


def test_outputs_of_tools_are_read():
    warmup = "INFO: count=9 first=3 curr=4 min=1 max=9 avg=5 std=1\n"
    tflite = f"{warmup}INFO: count=50 first=14 curr=15 min=14000 max=16000 avg=14575.2 std=210\n"
    older = "count=50 min=14000 max=16000 avg=1.45752e+04 std=210"
    app = {"execution_results": {"latency (ms)": "0.19", "avg latency": "2.10", "min latency": "0.18",
                                 "total number of iterations": "457"}}  # fmt: skip
    printed = "[ INFO ] Count:   457 iterations\n[ INFO ]    Median:    0.19 ms\n[ INFO ]    Min:       0.18 ms"
    newer = "[I] GPU Compute Time: min = 5.3 ms, max = 9 ms, mean = 7.5 ms, median = 7.1 ms, percentile(90%) = 8.2 ms"

    assert TOOLS["benchmark_model"].read(tflite) == ToolTimes(n=50, min=14.0, p50=14.5752, std=0.21, resolution=1e-3)
    assert TOOLS["benchmark_model"].read(older).p50 == pytest.approx(14.5752)
    assert TOOLS["benchmark_app"].read(json.dumps(app)) == ToolTimes(n=457, min=0.18, p50=0.19, resolution=0.01)
    assert TOOLS["benchmark_app"].read(printed) == ToolTimes(n=457, min=0.18, p50=0.19, resolution=0.01)
    assert TOOLS["trtexec"].read(newer) == ToolTimes(n=1, min=5.3, p50=7.1, p90=8.2)


@pytest.mark.parametrize("tool", TOOLS)
def test_outputs_without_a_time_say_what_was_last(tool):
    with pytest.raises(FormatError, match="no .* of .*'\\[E\\] out of memory'"):
        TOOLS[tool].read("started\n[E] out of memory\n\n")


@pytest.mark.parametrize(
    ("tool", "precision", "batch", "message"),
    [
        ("benchmark_model", "int8", 1, "benchmark_model cannot measure int8 here: random blocks have no calibration"),
        ("benchncnn", "int8", 1, "ncnn2table"),
        ("benchncnn", "fp32", 4, "one image at a time"),
    ],
)
def test_what_a_tool_cannot_measure_is_refused(tool, precision, batch, message):
    with pytest.raises(InputError, match=message):
        check_tool(TOOLS[tool], precision=precision, batch=batch)


@pytest.fixture
def ssh(device, monkeypatch):
    """A stand-in for ssh; me@board is a home folder here, and no other machine takes the key."""
    path = device / "bin" / "ssh"
    path.write_text(device_tools.SSH)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    (device / "home").mkdir()
    monkeypatch.setenv("SSH_HOME", str(device / "home"))
    monkeypatch.setenv("SSH_CALLS", str(device / "ssh_calls"))
    return device


def test_a_device_is_measured_by_ssh_with_keys_alone(ssh, packs):
    pack, results = packs / "trtexec.tar.gz", ssh / "results.tar.gz"

    measure_by_ssh("me@board", pack, results)
    table = ingest(results, [SPACE], name="board", date="2026-02-01").table
    measure_by_ssh("me@board", pack, results)  # all is there already

    assert {row.status for row in table.rows} == {MEASURED}
    calls = (ssh / "ssh_calls").read_text().splitlines()
    assert len(calls) == 6
    assert all("-o BatchMode=yes" in call for call in calls)
    assert len(list((ssh / "home").iterdir())) == 1


def test_a_machine_that_takes_no_key_is_said_with_what_to_do(ssh, packs):
    with pytest.raises(RuntimeFailedError, match="no connection with a key: .*Permission denied.*ssh-copy-id"):
        measure_by_ssh("you@elsewhere", packs / "trtexec.tar.gz", ssh / "results.tar.gz")
    with pytest.raises(InputError, match="'-oProxyCommand=x' is no machine"):
        measure_by_ssh("-oProxyCommand=x", packs / "trtexec.tar.gz", ssh / "results.tar.gz")
    assert not (ssh / "results.tar.gz").exists()


def test_the_command_packs_runs_by_ssh_and_ingests(ssh, monkeypatch):
    monkeypatch.chdir(ssh)
    (ssh / "small.json").write_text(json.dumps(SPACE.to_dict()))
    quick = ["--runtime", "ncnn", "--networks", "10", "--space", "small.json"]

    packed = CliRunner().invoke(main, ["profile", *quick, "--pack", "pack.tar.gz", "--json"])
    measured = CliRunner().invoke(main, ["profile", *quick, "--device", "board", "--ssh", "me@board"])
    (folder,) = (ssh / "home").iterdir()
    shutil.copy(folder / FOLDER / "results.tar.gz", ssh)
    again = CliRunner().invoke(
        main, ["profile", "--device", "board2", "--ingest", "results.tar.gz", "--space", "small.json"]
    )
    unknown = CliRunner().invoke(main, ["profile", "--device", "board3", "--ingest", "results.tar.gz"])

    assert packed.exit_code == 0, packed.output
    assert json.loads(packed.stdout)["tool"] == "benchncnn"
    # The stand-in's times have nothing to do with MACs, which lint finds; the tables are written all the same.
    assert (measured.exit_code, again.exit_code) == (2, 2), measured.output + again.output
    assert "error N2E-L005: the rank correlation of latency with MACs" in measured.stdout
    assert "searches refuse this table" in measured.stdout
    assert "use it" not in measured.stdout
    one, two = (read_table(ssh / "latency_tables" / f"{name}.json") for name in ("board", "board2"))
    assert [row.p50 for row in one.rows] == [row.p50 for row in two.rows]
    assert len(one.rows) == len(REQUEST.blocks)
    assert (unknown.exit_code, "unknown space 'small'" in unknown.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimate", "--ssh", "me@board"], "--estimate and --ssh exclude each other"),
        (["--pack", "x.tar.gz", "--budget", "1min"], "--pack and --budget exclude each other"),
        (["--pack", "x.zip", "--runtime", "ncnn"], "does not end in .tar.gz"),
        (["--pack", "x.tar.gz"], "no benchmark tool of onnxruntime is known here"),
        (["--device", "board"], "--ssh or --pack"),
    ],
)
def test_modes_that_exclude_each_other_are_refused(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(main, ["profile", *arguments])

    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.slow
def test_a_real_tool_measures_a_pack(tmp_path):
    """OpenVINO's benchmark_app, which comes with its Python package."""
    tool = Path(shutil.which("benchmark_app") or Path(os.sys.executable).with_name("benchmark_app"))
    if not tool.is_file():
        pytest.skip("benchmark_app is not installed")
    layers = list(REQUEST.blocks.values())
    request = replace(REQUEST, layers=tuple(layers[:3]), nets=0)
    write_pack(tmp_path / "pack.tar.gz", request, tool=TOOLS["benchmark_app"], precision="fp32", threads=1)
    done = run(tmp_path, tmp_path / "pack.tar.gz", PATH=f"{tool.parent}{os.pathsep}{os.environ['PATH']}")

    assert done.returncode == 0
    results = sorted((tmp_path / FOLDER / "results").glob("*-s0-i*.txt"))
    times = [TOOLS["benchmark_app"].read(path.read_text().partition("output:\n")[2]) for path in results]
    assert len(times) == len(packed_items(request)[0]) - 1 == 5
    assert all(found.n > 10 and found.p50 > 0 for found in times)
