"""nas2edge search: options, files, output and exit codes, with hand-made tables and a made-up evaluator."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nas2edge import LayerSpec, SubnetConfig, load_space, plan, unique_layers
from nas2edge.cli import main
from nas2edge.costs import count_macs
from nas2edge.device import Device
from nas2edge.latency.table import LatencyTable, TableRow
from nas2edge.latency.table_file import write_table
from nas2edge.subnet_file import read_subnet

ATTENTIVENAS, TINY = load_space("attentivenas"), load_space("tiny")


def _ms(layer: LayerSpec) -> float:
    """Hand-made latencies: 0.1 ms a block and 20 GMAC/s."""
    return 0.1 + count_macs(layer) / 20e6


def _row(layer: LayerSpec, *, slower: float, status: str) -> TableRow:
    ms = slower * _ms(layer)
    spread = {"n": 50, "min": ms, "p10": ms, "p90": ms, "std": 0.0} if status == "measured" else {}
    return TableRow(layer=layer, p50=ms, status=status, rel_sigma=0.1, **spread)  # type: ignore[arg-type]


def _table(name: str, *, slower: float, kind: str) -> LatencyTable:
    """A table of both spaces; where it is measured, its stems are interpolated."""
    layers = {layer.key: layer for space in (ATTENTIVENAS, TINY) for layer in unique_layers(space)}.values()
    status = {layer.key: "interpolated" if layer.op == "first_conv" else kind for layer in layers}
    return LatencyTable(
        device=Device(name=name, chip="made up", runtime="none", precision="fp32"),
        kind=kind,
        rows=tuple(_row(layer, slower=slower, status=status[layer.key]) for layer in layers),
        rel_sigma=0.2 if kind == "estimated" else 0.05,
        date="2026-01-31",
        source="made up for a test",
        licence="CC0-1.0",
    )


JETSON = _table("jetson-orin-nano", slower=1.0, kind="estimated")
PI = _table("raspberry-pi-4", slower=10.0, kind="measured")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    for table in (JETSON, PI):
        write_table(folder / f"{table.device.name}.json", table)
    return folder


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tables: Path) -> None:
    # ./latency_tables is where the command looks without --tables.
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "latency_tables").symlink_to(tables)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def supernet(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Puts a made-up evaluator of the tiny space in place of torch; returns how many sub-networks it was asked for."""
    space = load_space("tiny")
    asked: list[SubnetConfig] = []

    def evaluator(subnets: Sequence[SubnetConfig]) -> list[float]:
        asked.extend(subnets)
        return [60.0 + float(np.sqrt(space.encode([subnet])).sum()) for subnet in subnets]

    class Evaluator:
        tested = 2000
        __call__ = staticmethod(evaluator)

    info = SimpleNamespace(space=space, sha256="ab" * 32)
    checkpoint, evaluate = ModuleType("checkpoint"), ModuleType("evaluate")
    checkpoint.load_supernet = lambda source: SimpleNamespace(info=info)  # type: ignore[attr-defined]
    evaluate.make_evaluator = lambda loaded, data=None: Evaluator()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nas2edge.supernet.checkpoint", checkpoint)
    monkeypatch.setitem(sys.modules, "nas2edge.supernet.evaluate", evaluate)
    monkeypatch.setattr("nas2edge.supernet.weights_file.supernet_info", lambda source: info)
    monkeypatch.setattr("nas2edge.optional.require", lambda *modules, **_: None)
    return lambda: len(asked)


def _run(*args: str) -> Result:
    return CliRunner().invoke(main, ["search", *args], catch_exceptions=False)


def _published(*args: str) -> Result:
    return _run("--space", "attentivenas", "--evaluations", "1500", *args)


def test_search_writes_the_choice_and_the_front() -> None:
    result = _published("--device", "jetson", "--latency", "20ms")

    assert result.exit_code == 0, result.output
    file = read_subnet(Path("subnet.json"))
    pareto = json.loads(Path("pareto.json").read_text())
    estimate = JETSON.estimate(plan(ATTENTIVENAS, file.subnet))
    assert estimate.ms <= 20.0
    assert (file.device, file.constraints) == ("jetson-orin-nano", {"latency_ms": 20.0})
    assert file.predicted["latency_ms"] == pytest.approx(estimate.ms)
    assert file.predicted["latency_sigma_ms"] == pytest.approx(estimate.sigma_ms)
    assert file.predicted["latency_kind"] == "estimated"
    assert file.predicted["accuracy_source"] == "published-points"
    assert pareto["best"] == file.subnet.id
    assert max(point["accuracy"] for point in pareto["points"]) == file.predicted["accuracy"]
    assert pareto["devices"] == {"jetson-orin-nano": {"kind": "estimated", "digest": JETSON.digest}}


def test_output_says_where_each_figure_comes_from_and_what_is_next() -> None:
    output = _published("--device", "jetson", "--latency", "20ms").stdout

    assert "jetson-orin-nano" in output
    assert "estimated" in output
    assert re.search(r"latency on jetson-orin-nano: \d\d\.\d ± \d\.\d ms, estimated; 0 %", output)
    assert "0 % of it from measured rows" in output
    assert "± 0.08 from published-points (a curve over MACs through 8 published networks" in output
    assert "searched: 1,500 accuracies" in output
    assert "next: nas2edge export subnet.json --to onnx" in output
    assert sum(line.lstrip().startswith("*") for line in output.splitlines()) == 1


def test_a_limit_that_does_not_bind_is_noted() -> None:
    output = _published("--device", "jetson", "--latency", "2s").stdout

    assert "note: latency on jetson-orin-nano <= 2 s does not bind: no sub-network of the space needs more" in output
    assert "note:" not in _published("--device", "jetson", "--latency", "20ms").stdout


def test_json_is_one_object_with_what_the_files_hold() -> None:
    result = _published("--device", "jetson:20ms", "--json")

    printed = json.loads(result.stdout)
    assert (printed["format"], printed["version"]) == ("nas2edge.search", 1)
    assert printed["subnet"] == json.loads(Path("subnet.json").read_text())
    assert printed["pareto"] == json.loads(Path("pareto.json").read_text())
    assert printed["files"] == {"subnet": "subnet.json", "pareto": "pareto.json"}
    assert "chosen:" in result.stderr


def test_each_device_may_have_a_limit_of_its_own() -> None:
    result = _published("--device", "jetson", "--device", "raspberry-pi:150ms", "--latency", "25ms", "--params", "12M")

    assert result.exit_code == 0, result.output
    file = read_subnet(Path("subnet.json"))
    assert file.constraints == {"latency_ms": 25.0, "latency_ms:raspberry-pi-4": 150.0, "params": 12_000_000}
    on_pi = PI.estimate(plan(ATTENTIVENAS, file.subnet))
    assert file.predicted["latency_ms:raspberry-pi-4"] == pytest.approx(on_pi.ms)
    assert file.predicted["measured_share:raspberry-pi-4"] == pytest.approx(on_pi.measured_share)
    assert 0.9 < on_pi.measured_share < 1.0
    assert on_pi.ms <= 150.0
    assert file.predicted["params"] <= 12_000_000


def test_without_a_device_macs_are_traded_against_accuracy() -> None:
    result = _published("--macs", "300M")

    pareto = json.loads(Path("pareto.json").read_text())
    assert result.exit_code == 0, result.output
    assert [objective["metric"] for objective in pareto["objectives"]] == ["accuracy", "macs"]
    assert max(point["macs"] for point in pareto["points"]) <= 300e6


def test_equal_seeds_write_equal_files() -> None:
    for name in ("a", "b"):
        _published("--macs", "300M", "--seed", "5", "--out", f"{name}.json", "--front", f"{name}-front.json")

    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()
    assert Path("a-front.json").read_bytes() == Path("b-front.json").read_bytes()


def test_the_embedded_supernet_is_the_default_and_its_evaluations_are_counted(supernet: Callable[[], int]) -> None:
    result = _run("--device", "jetson", "--latency", "20ms", "--evaluations", "60", "--population", "10")

    assert result.exit_code == 0, result.output
    assert supernet() == 60
    file = read_subnet(Path("subnet.json"))
    assert file.supernet == {"source": "builtin:tiny", "sha256": "ab" * 32}
    assert file.predicted["accuracy_source"] == "supernet"
    assert "evaluating up to 60 sub-networks on 2000 images each" in result.stderr
    assert "does not bind: no sub-network of the space needs more than 1.9" in result.stdout
    assert "standard error on 2000 validation images" in result.stdout
    assert result.stdout.rstrip().endswith("next: nas2edge export subnet.json --to onnx")


def test_a_supernet_search_reports_the_binomial_error(supernet: Callable[[], int]) -> None:
    _run("--macs", "3M", "--evaluations", "30", "--population", "8")

    accuracy = json.loads(Path("subnet.json").read_text())["predicted"]
    p = accuracy["accuracy"] / 100
    assert accuracy["accuracy_error"] == pytest.approx(100 * (p * (1 - p) / 2000) ** 0.5)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--latency", "20"], 2, "the latency '20' has no unit"),
        (["--latency", "20MB"], 2, "has the unit 'MB'"),
        (["--macs", "-3"], 2, "is not a count"),
        (["--device", "jetson:20"], 2, "error: the latency '20' has no unit"),
        (["--device", "jetsen"], 2, "error: unknown device 'jetsen'; did you mean 'jetson'"),
        (["--latency", "20ms"], 2, "error: --latency needs a device to hold it on"),
        (
            ["--device", "raspberry-pi", "--device", "raspberry-pi:20ms"],
            2,
            "error: --device raspberry-pi is given twice",
        ),
        (["--device", "jetson", "--device", "jetson-orin-nano"], 2, "which is given already"),
        (["--out", "x.json", "--front", "x.json"], 2, "error: --out and --front are both x.json"),
        (["--out", "nowhere/x.json"], 2, "error: cannot write nowhere/x.json: there is no folder nowhere"),
        (["--data", "images"], 2, "error: --data are images to run a supernet on"),
        (["--macs", "100M"], 7, "error: no sub-network of the space 'attentivenas' meets MACs <= 100M: the least"),
        (["--device", "raspberry-pi:1ms"], 7, "meets latency on raspberry-pi-4 <= 1 ms: the least reachable is 1"),
    ],
)
def test_mistakes_end_with_their_exit_code_one_line_and_no_file(args: list[str], code: int, message: str) -> None:
    result = _published(*args)

    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert [path.name for path in Path().iterdir()] == ["latency_tables"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--space", "attentivnas"], "unknown space 'attentivnas'; did you mean 'attentivenas'"),
        (["--space", "tiny", "--supernet", "run"], "exclude each other"),
    ],
)
def test_an_unknown_source_is_refused(args: list[str], message: str) -> None:
    result = _run(*args)

    assert result.exit_code == 2
    assert message in result.stderr


def test_a_space_of_ones_own_needs_a_supernet() -> None:
    raw = {**load_space("tiny").to_dict(), "name": "own"}
    Path("own.json").write_text(json.dumps(raw))

    result = _run("--space", "own.json")

    assert result.exit_code == 2
    assert "published accuracies exist for the space 'attentivenas' only; got 'own'" in result.stderr


def test_an_existing_file_survives_a_failure() -> None:
    Path("subnet.json").write_text("mine")

    assert _published("--macs", "1M").exit_code == 7
    assert Path("subnet.json").read_text() == "mine"
