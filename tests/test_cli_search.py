"""nas2edge search: options, files, output and exit codes, with hand-made tables and a made-up evaluator."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nas2edge import LayerSpec, SubnetConfig, load_space, plan, unique_layers
from nas2edge.cli import main
from nas2edge.costs import count, count_macs
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
        each = staticmethod(evaluator)

    info = SimpleNamespace(
        space=space, sha256="ab" * 32, images=None, source="builtin:tiny", path=Path("weights/supernet.safetensors")
    )
    checkpoint, evaluate = ModuleType("checkpoint"), ModuleType("evaluate")
    checkpoint.load_supernet = lambda source: SimpleNamespace(info=info)  # type: ignore[attr-defined]
    evaluate.make_evaluator = lambda loaded, data=None, split=None: Evaluator()  # type: ignore[attr-defined]
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
    assert printed["files"] == {
        "subnet": "subnet.json",
        "pareto": "pareto.json",
        "subnets": ["subnet.json"],
        "report": None,
    }
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
        (
            ["--device", "jetson:20ms", "--latency", "9ms"],
            2,
            "error: --latency is the limit of devices without their own",
        ),
        (["--device", "jetson", "--latency", "20ms,0.02s"], 2, "error: --latency 20ms,0.02s names a limit twice"),
        (["--device", "jetson", "--latency", "20ms,5"], 2, "error: --latency: the latency '5' has no unit"),
        (["--device", "jetson", "--latency", "20ms,1us"], 7, "meets latency on jetson-orin-nano <= 1 us: the least"),
        (["--confidence", "0.9"], 2, "error: --confidence is how surely a latency keeps its limit"),
        (["--confidence", "90", "--device", "jetson:20ms"], 2, "0.5<=x<1"),
        (["--one-for-all-devices", "--device", "jetson:20ms"], 2, "error: --one-for-all-devices compares devices"),
        (["--one-for-all-devices", "--device", "jetson:20ms", "--device", "raspberry-pi"], 2, "one latency limit for"),
        (
            ["--fix", "resolution=200"],
            2,
            "error: cannot fix resolution=200: resolution of the space 'attentivenas' may",
        ),
        (["--fix", "depth.1=3", "--fix", "depth.1=4"], 2, "error: --fix depth.1=3 and --fix depth.1=4 contradict"),
        (["--fix", "deepness=3"], 2, "error: unknown gene 'deepness'"),
        (
            ["--fix", "resolution=288", "--macs", "300M"],
            7,
            "space 'attentivenas with resolution=288' meets MACs <= 300M",
        ),
        (
            ["--forbid", "se"],
            7,
            "error: every sub-network of the space 'attentivenas' has squeeze-and-excitation in st",
        ),
        (["--size", "2"], 2, "error: --size: the size '2' has no unit"),
        (["--memory", "1kB"], 7, "meets activation memory <= 1 kB: the least reachable is 3.539 MB"),
        (["--evaluations", "0"], 2, "0 is not in the range x>=1"),
        (["--evaluations", "-5"], 2, "-5 is not in the range x>=1"),
        (["--algorithm", "nsga3"], 2, "'nsga3' is not one of 'nsga2'"),
        (["--algorithm", "exact", "--params", "10M"], 2, "error: the algorithm 'exact' takes one cost"),
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


def test_several_limits_write_a_subnetwork_for_each() -> None:
    result = _published("--device", "jetson", "--latency", "20ms,16ms,0.014s", "--json")

    assert result.exit_code == 0, result.output
    names = ["subnet-20ms.json", "subnet-16ms.json", "subnet-14ms.json"]
    printed = json.loads(result.stdout)
    assert printed["files"] == {"subnet": names[0], "pareto": "pareto.json", "subnets": names, "report": None}
    files = [read_subnet(Path(name)) for name in names]
    assert [file.constraints for file in files] == [{"latency_ms": limit} for limit in (20.0, 16.0, 14.0)]
    assert [file.predicted["latency_ms"] <= file.constraints["latency_ms"] for file in files] == [True] * 3
    assert files[0].predicted["accuracy"] > files[1].predicted["accuracy"] > files[2].predicted["accuracy"]
    assert [entry["id"] for entry in printed["pareto"]["choices"]] == [file.subnet.id for file in files]
    assert "chosen for latency on jetson-orin-nano <= 16 ms" in result.stderr
    assert not Path("subnet.json").exists()


def test_limits_whose_files_would_be_one_are_refused() -> None:
    result = _published("--device", "jetson", "--latency", "20ms,20.001ms")

    assert result.exit_code == 2
    assert "two limits of --latency would both write subnet-20ms.json" in result.stderr


def test_one_for_all_devices_is_compared_with_one_for_each() -> None:
    result = _published("--device", "jetson:17ms", "--device", "raspberry-pi:150ms", "--one-for-all-devices", "--json")

    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    account, file = printed["one_for_all"], read_subnet(Path("subnet.json"))
    assert file.constraints == {"latency_ms": 17.0, "latency_ms:raspberry-pi-4": 150.0}
    assert (account["id"], account["accuracy"]) == (file.subnet.id, file.predicted["accuracy"])
    assert set(account["devices"]) == {"jetson-orin-nano", "raspberry-pi-4"}
    # The Pi is ten times slower throughout, so that its limit alone decides.
    assert account["devices"]["raspberry-pi-4"]["loss"] == pytest.approx(0.0, abs=0.02)
    assert account["worst_loss"] == account["devices"]["jetson-orin-nano"]["loss"] > 0.05
    assert "one for all devices loses" in result.stderr


def test_size_memory_and_fixed_genes_hold() -> None:
    result = _published("--size", "45MB", "--memory", "4MB", "--fix", "resolution=192", "--fix", "kernel_size=3")

    assert result.exit_code == 0, result.output
    file = read_subnet(Path("subnet.json"))
    costs = count(plan(ATTENTIVENAS, file.subnet))
    assert file.space == ATTENTIVENAS
    assert file.constraints == {"size_bytes": 45e6, "memory_bytes": 4e6}
    assert (file.predicted["size_bytes"], file.predicted["memory_bytes"]) == (
        4 * costs.params,
        4 * costs.peak_activations,
    )
    assert 4 * costs.params <= 45e6
    assert 4 * costs.peak_activations <= 4e6
    assert (file.subnet.resolution, set(file.subnet.kernel_size)) == (192, {3})
    assert "in fp32:" in result.stdout


def test_confidence_keeps_a_margin() -> None:
    result = _published("--device", "jetson:25ms", "--confidence", "0.9")

    assert result.exit_code == 0, result.output
    file = read_subnet(Path("subnet.json"))
    estimate = JETSON.estimate(plan(ATTENTIVENAS, file.subnet))
    assert estimate.ms + 1.2815515655446004 * estimate.sigma_ms <= 25.0
    assert file.constraints == {"latency_ms": 25.0, "confidence": 0.9}


@pytest.mark.parametrize("algorithm", ["aging", "random", "alphanet", "exact"])
def test_other_algorithms_keep_the_limit(algorithm: str) -> None:
    result = _published("--device", "jetson:16ms", "--algorithm", algorithm)

    assert result.exit_code == 0, result.output
    assert read_subnet(Path("subnet.json")).predicted["latency_ms"] <= 16.0
    assert json.loads(Path("pareto.json").read_text())["search"]["algorithm"] == algorithm


def test_the_exact_algorithm_says_what_stands_for_the_accuracy() -> None:
    output = _published("--macs", "300M", "--algorithm", "exact").stdout

    assert re.search(r"searched: exactly, .* a sum over stages stands for the accuracy, 0\.\d+ points off", output)
    assert "no sub-network within the limits exceeds" in output


def test_a_search_goes_on_from_the_accuracies_of_one_that_was_cut_short(supernet: Callable[[], int]) -> None:
    args = ("--macs", "3M", "--population", "8")
    _run(*args, "--evaluations", "40", "--out", "whole.json", "--front", "whole-front.json")
    lines = Path("accuracies.jsonl").read_text().splitlines(keepends=True)
    assert (len(lines), supernet()) == (40, 40)
    Path("accuracies.jsonl").write_text("".join(lines[:25]) + lines[25][:20])  # as if killed while writing

    result = _run(*args, "--evaluations", "40")

    assert supernet() == 40 + 15
    assert "25 of this supernet are known already" in result.stderr
    assert Path("subnet.json").read_bytes() == Path("whole.json").read_bytes()
    assert Path("pareto.json").read_bytes() == Path("whole-front.json").read_bytes()
    assert len(Path("accuracies.jsonl").read_text().splitlines()) == 40


def test_the_folder_of_accuracies_may_be_another(supernet: Callable[[], int]) -> None:
    Path("kept").mkdir()

    _run("--macs", "3M", "--evaluations", "10", "--population", "4", "--cache", "kept")

    assert len(Path("kept/accuracies.jsonl").read_text().splitlines()) == 10
    assert not Path("accuracies.jsonl").exists()


def test_an_algorithm_asked_for_by_name_runs_on_a_supernet(supernet: Callable[[], int]) -> None:
    result = _run("--macs", "3M", "--evaluations", "30", "--population", "8", "--algorithm", "alphanet")

    assert (result.exit_code, supernet()) == (0, 30)
    refused = _run("--algorithm", "exact")
    assert refused.exit_code == 2
    assert "the algorithm 'exact' needs an accuracy that is cheap" in refused.stderr


def test_a_table_without_the_blocks_of_the_space_is_refused_by_name() -> None:
    rows = [_row(layer, slower=1.0, status="interpolated") for layer in unique_layers(TINY)[:9]]
    write_table(
        Path("own.json"), replace(JETSON, kind="derived", rows=tuple(rows), device=replace(JETSON.device, name="own"))
    )
    Path("tables").mkdir()
    Path("own.json").rename("tables/own.json")

    result = _published("--device", "own", "--tables", "tables")

    assert result.exit_code == 2
    assert "the latency table 'own' has no row for 896 blocks" in result.stderr
