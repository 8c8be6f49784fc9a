"""nas2edge bench from the command line: what it prints, its JSON, its picture, and what it refuses."""

import json

import numpy as np
import onnx
import pytest

from nas2edge.bench.artefact import find_artefact
from nas2edge.bench.predicted import block_shares, layers_of, predict
from nas2edge.bench.result import read_stored
from nas2edge.cli import main
from nas2edge.device import Device
from nas2edge.graph import network_model, random_weights
from nas2edge.latency.kernels import KernelLaw
from nas2edge.latency.law import estimated_table
from nas2edge.latency.table_file import write_table
from nas2edge.plan import plan
from nas2edge.runtimes.operators import OperatorTime
from nas2edge.spaces import load_space
from tests.bench_nets import chain

QUICK = ["--rounds", "2", "--cycles", "4"]


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    return [str(chain(folder, blocks)) for blocks in (2, 24)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A whole sub-network of tiny that says which one it is."""
    space = load_space("tiny")
    subnet = space.smallest()
    layers = plan(space, subnet)
    metadata = {"nas2edge.space": "tiny", "nas2edge.subnet": json.dumps(subnet.to_dict())}
    path = tmp_path_factory.mktemp("network") / "net.onnx"
    onnx.save(network_model(layers, random_weights(layers, np.random.default_rng(0)), metadata=metadata), path)
    return path


@pytest.fixture
def tables(tmp_path):
    """A folder with a table "board", whose every row says how long its block takes."""
    law = KernelLaw(name="board", launch_us=2.0, bandwidth_gb_s=10.0, pointwise_gmac_s=30.0, depthwise_gmac_s=5.0,
                    value_bytes=4, peak_gmac_s=100.0, fused_acts=("swish", "relu", "hsigmoid"), rel_sigma=0.2,
                    source="made up for a test")  # fmt: skip
    space = load_space("tiny")
    layers = plan(space, space.smallest())
    device = Device(name="board", chip="chip", runtime="ONNX Runtime", precision="fp32")
    write_table(tmp_path / "board.json", estimated_table(law, device, layers, date="2026-01-01", licence="CC0-1.0"))
    return tmp_path


def test_several_networks_are_compared_and_drawn(runner, nets, tmp_path):
    picture, stored = tmp_path / "times.png", tmp_path / "result.json"
    result = runner.invoke(main, ["bench", *nets, *QUICK, "--json", "--plot", str(picture)])
    found = json.loads(result.stdout)
    stored.write_text(result.stdout)

    assert result.exit_code == 0
    small, large = found["results"]
    times = small["latency_ms"]
    assert 0 < times["min"] <= times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
    assert times["p50_interval"][0] <= times["p50_interval"][1]
    assert times["load"] > 0 and times["first"] > 0 and times["peak_bytes"] > 1e6
    assert small["footprint"]["macs"] < large["footprint"]["macs"]
    assert np.shape(small["log_seconds"]) == np.shape(small["anchor_log_seconds"]) == (2, 4)
    (pair,) = found["comparisons"]
    assert (pair["new"], pair["old"]) == (nets[1], nets[0])
    assert pair["ratio"] > 3
    assert found["fingerprint"]["threads"] == 1 and found["fingerprint"]["runtimes"][0].startswith("ONNX Runtime ")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert read_stored(stored).p50_ms == times["p50"]


def test_the_terminal_shows_times_costs_operators_and_the_machine(runner, nets):
    result = runner.invoke(main, ["bench", nets[0], *QUICK, "--profile", "--threads", "1"])

    assert result.exit_code == 0
    for text in ("p50", "p99", "95 % interval", "first run", "MACs", "operators of", "Conv", "1 thread(s)", "load"):
        assert text in result.stdout


def test_other_runtimes_are_timed(runner, nets):
    result = runner.invoke(main, ["bench", nets[0], *QUICK, "--runtime", "openvino", "--json"])

    assert result.exit_code == 0
    assert json.loads(result.stdout)["results"][0]["runtime_version"].startswith("OpenVINO ")


def test_a_table_stands_beside_block_by_block(runner, network, tables):
    arguments = ["bench", str(network), *QUICK, "--vs-table", "board", "--tables", str(tables), "--json"]
    result = runner.invoke(main, arguments)
    found = json.loads(result.stdout)["prediction"]
    blocks = {block["name"]: block for block in found["blocks"]}

    assert result.exit_code == 0
    assert list(blocks)[0] == "stem" and list(blocks)[-1] == "head"
    assert all(block["measured_ms"] > 0 and block["predicted_ms"] > 0 for block in blocks.values())
    total = sum(block["measured_ms"] for block in blocks.values()) + found["unmapped_ms"]
    assert total == pytest.approx(found["measured_ms"], rel=1e-6)
    assert "stages.4.blocks.0" in result.stderr


def test_operators_without_a_name_of_ours_count_with_the_one_before():
    space = load_space("tiny")
    layers = plan(space, space.smallest())
    times = [
        ("ReorderInput", 1.0),
        ("stem.conv_nchwc", 2.0),
        ("ReorderOutput_token_7", 1.0),
        ("stages.0.blocks.0.depthwise/WithoutBiases", 3.0),
        ("images_stem.conv/x", 1.0),
        ("logits", 2.0),
    ]
    shares = block_shares(layers, [OperatorTime(name=name, kind="", ms=ms) for name, ms in times])

    assert shares == {"": 0.1, "stem": 0.4, "stages.0.blocks.0": 0.3, "head": 0.2}


def test_a_prediction_scales_shares_to_the_measured_latency(network, tables):
    from nas2edge.latency.registry import load_table

    table, layers = load_table("board", tables=tables), layers_of(find_artefact(str(network)))
    assert layers is not None
    found = predict(table, layers, [OperatorTime(name="stem.conv", kind="Conv", ms=2.0)], measured_ms=5.0)

    assert found.predicted_ms == pytest.approx(table.estimate(layers).ms)
    assert found.blocks[0].measured_ms == 5.0 and found.blocks[1].measured_ms is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.onnx"], "there is no file or bundle none.onnx"),
        (["{net}", "--plot", "times.svg"], "does not end in .png"),
        (["{net}", "--plot", "none/times.png"], "there is no folder none"),
        (["{net}", "{net}", "--vs-table", "cpu"], "takes one artefact; 2 were given"),
        (["{net}", "--vs-table", "cpu", "--rounds", "2", "--cycles", "4"], "does not say which sub-network it is"),
        (["{net}", "--input-shape", "1,3"], "no shape; expected positive numbers with x between"),
        (["{net}", "--runtime", "onnxrutime"], "did you mean 'onnxruntime'"),
        (["{net}", "--time-limit", "0s"], "expected a positive number"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said, runner, nets):
    result = runner.invoke(main, ["bench", *(argument.format(net=nets[0]) for argument in arguments)])

    assert result.exit_code == 2
    assert said in result.stderr
