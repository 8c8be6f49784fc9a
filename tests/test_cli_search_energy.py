"""nas2edge search with energy, other objectives and forbidden choices, by hand-made tables."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nas2edge import LayerSpec, load_space, plan, unique_layers
from nas2edge.cli import main
from nas2edge.costs import count_macs
from nas2edge.device import Device
from nas2edge.latency.table import LatencyTable, TableRow
from nas2edge.latency.table_file import write_table
from nas2edge.subnet_file import read_subnet

SPACE = load_space("attentivenas")


def _row(layer: LayerSpec) -> TableRow:
    """20 GMAC/s and 0.1 ms a block; 3 mJ a GMAC and 0.02 mJ a block, so that the two disagree."""
    ms, macs = 0.1 + count_macs(layer) / 20e6, count_macs(layer)
    return TableRow(
        layer=layer, p50=ms, n=50, min=ms, p10=ms, p90=ms, std=0.0, rel_sigma=0.1, status="measured",
        energy_mj=0.02 + 3e-9 * macs,
    )  # fmt: skip


BOARD = LatencyTable(
    device=Device(name="board", chip="made up", runtime="none", precision="fp32"),
    kind="measured",
    rows=tuple(_row(layer) for layer in unique_layers(SPACE)),
    rel_sigma=0.05,
    date="2026-01-31",
    source="made up for a test",
    licence="CC0-1.0",
)
PLAIN = replace(
    BOARD, device=replace(BOARD.device, name="plain"), rows=tuple(replace(row, energy_mj=None) for row in BOARD.rows)
)
PARTIAL = replace(
    BOARD,
    device=replace(BOARD.device, name="partial"),
    rows=(replace(BOARD.rows[0], energy_mj=None), *BOARD.rows[1:]),
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    for table in (BOARD, PLAIN, PARTIAL):
        write_table(folder / f"{table.device.name}.json", table)
    return folder


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tables: Path) -> None:
    (tmp_path / "latency_tables").symlink_to(tables)
    monkeypatch.chdir(tmp_path)


def _run(*args: str) -> Result:
    asked = ["search", "--space", "attentivenas", "--evaluations", "1500", "--force-table", *args]
    return CliRunner().invoke(main, asked, catch_exceptions=False)


def test_energy_is_a_limit_and_stands_in_the_files() -> None:
    result = _run("--device", "board", "--energy", "1.5mJ")

    assert result.exit_code == 0, result.output
    file = read_subnet(Path("subnet.json"))
    energy = BOARD.energy_mj(plan(SPACE, file.subnet))
    assert energy <= 1.5
    assert file.constraints == {"energy_mj": 1.5}
    assert file.predicted["energy_mj"] == pytest.approx(energy)
    pareto = json.loads(Path("pareto.json").read_text())
    assert max(point["devices"]["board"]["energy_mj"] for point in pareto["points"]) <= 1.5
    assert 0 < pareto["constraints"][0]["least"] < 1.5 < pareto["constraints"][0]["greatest"]
    assert f"energy on board: {energy:.3g} mJ, measured" in result.stdout


def test_energy_is_an_objective() -> None:
    result = _run("--device", "board", "--objective", "energy", "--objective", "memory")

    assert result.exit_code == 0, result.output
    pareto = json.loads(Path("pareto.json").read_text())
    assert [(o["metric"], o["device"]) for o in pareto["objectives"]] == [
        ("accuracy", None), ("energy_mj", "board"), ("memory_bytes", None)
    ]  # fmt: skip


def test_an_energy_out_of_reach_names_the_closest() -> None:
    result = _run("--device", "board", "--energy", "10uJ")

    assert result.exit_code == 7
    # 203.4 MMACs at 3 nJ, and 19 blocks at 20 uJ.
    assert "meets energy on board <= 10 uJ: the least reachable is 991 uJ" in result.stderr


def test_forbidden_choices_do_not_occur() -> None:
    result = _run("--macs", "400M", "--forbid", "kernel_size=5", "--forbid", "resolution=288", "--forbid", "relu")
    assert result.exit_code == 7  # relu is in squeeze-and-excitation

    result = _run("--macs", "400M", "--forbid", "kernel_size=5", "--forbid", "resolution=288")

    assert result.exit_code == 0, result.output
    points = json.loads(Path("pareto.json").read_text())["points"]
    assert {k for point in points for k in point["subnet"]["kernel_size"]} == {3}
    assert 288 not in {point["subnet"]["resolution"] for point in points}


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--device", "plain", "--energy", "2mJ"], 2, "the latency table 'plain' states no energy"),
        (["--device", "plain", "--objective", "energy"], 2, "the latency table 'plain' states no energy"),
        (["--device", "partial", "--energy", "2mJ"], 2, "the latency table 'partial' has no energy for "),
        (["--energy", "2mJ"], 2, "--energy needs a device whose table states energies"),
        (["--objective", "energy"], 2, "--objective energy needs a device"),
        (["--device", "board", "--energy", "2W"], 2, "the energy '2W' has the unit 'W'"),
        (["--forbid", "gelu"], 2, "unknown operation to forbid 'gelu'"),
        (["--forbid", "swish"], 7, "has the activation swish"),
        (["--fix", "kernel_size=5", "--forbid", "kernel_size.1=5"], 2, "kernel_size.1 is fixed (kernel_size=5) and"),
        (
            ["--forbid", "kernel_size=3", "--forbid", "kernel_size=5"],
            7,
            "has kernel_size.0 = 3 or 5, and that is forbi",
        ),
        (["--forbid", "kernel_size=9"], 2, "cannot forbid kernel_size=9"),
    ],
)
def test_what_cannot_be_is_refused(args: list[str], code: int, message: str) -> None:
    result = _run(*args)

    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not Path("subnet.json").exists()
