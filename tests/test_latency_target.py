"""Blocks as each runtime executes them: the same values, thin ends included, and what no runtime here can do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from nas2edge import load_space, unique_layers
from nas2edge.cli import main, profile
from nas2edge.cli._int8 import int8_graph
from nas2edge.errors import InputError
from nas2edge.graph import network_model, random_weights
from nas2edge.latency import target as targets
from nas2edge.latency.borders import border_model, border_shapes, bordered_model, shape_after, shape_before
from nas2edge.latency.ncnn_model import ncnn_border, ncnn_model
from nas2edge.latency.protocol import Item
from nas2edge.latency.target import Target, check_target, make_prepare
from nas2edge.plan import plan
from nas2edge.runtimes import open_session

TINY = load_space("tiny")
LAYERS = unique_layers(TINY)


def some_block(**wanted):
    return next(layer for layer in LAYERS if all(getattr(layer, name) == value for name, value in wanted.items()))


def random_network(seed):
    rng = np.random.default_rng(seed)
    layers = plan(TINY, TINY.decode(TINY.sample(1, rng))[0])
    return layers, random_weights(layers, rng)


def images_for(session, rng):
    return rng.standard_normal(tuple(session.input.shape), dtype=np.float32)


@pytest.mark.parametrize("op", ["first_conv", "mbconv", "mbpool"])
def test_blocks_stand_between_thin_convolutions(op):
    layer = some_block(op=op)
    rng = np.random.default_rng(0)

    model = bordered_model([layer], rng=rng, batch=2)

    onnx.checker.check_model(model, full_check=True)
    ends = [node.name for node in (model.graph.node[0], model.graph.node[-1])]
    assert (ends[0] == "border.enter") == (shape_before(layer) is not None)
    assert (ends[1] == "border.leave") == (shape_after(layer) is not None)
    with open_session(model.SerializeToString(), runtime="onnxruntime") as session:
        chs = 3 if op == "first_conv" else 1
        assert session.input.shape == (2, chs, layer.hw_in, layer.hw_in)
        found = session.run(images_for(session, rng))
        assert found.shape == ((2, layer.classes) if op == "mbpool" else (2, 1, layer.hw_out, layer.hw_out))


def test_borders_are_the_two_thin_convolutions_alone():
    model = border_model((6, 24), rng=np.random.default_rng(0))

    onnx.checker.check_model(model, full_check=True)
    enter, leave = model.graph.node
    assert (enter.op_type, leave.op_type) == ("Conv", "Conv")
    assert [tuple(tensor.dims) for tensor in model.graph.initializer] == [(24, 1, 1, 1), (1, 24, 1, 1)]


def test_every_shape_between_blocks_is_a_border():
    shapes = border_shapes(LAYERS)

    for seed in range(5):
        layers, _ = random_network(seed)
        for before, after in zip(layers, layers[1:], strict=False):
            assert shape_after(before) == shape_before(after)
            assert shape_after(before) in shapes
    assert len(shapes) == len(set(shapes)) == 23


def write_ncnn(folder, model):
    path = Path(folder) / "model.param"
    param, weights = model
    path.write_text(param)
    path.with_suffix(".bin").write_bytes(weights)
    return path


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ncnn_models_give_the_logits_of_the_onnx_graph(seed, tmp_path):
    pytest.importorskip("ncnn")
    layers, weights = random_network(seed)
    images = np.random.default_rng(9).standard_normal((1, 3, layers[0].hw_in, layers[0].hw_in), dtype=np.float32)
    path = write_ncnn(tmp_path, ncnn_model(layers, weights))

    with (
        open_session(path, runtime="ncnn") as ours,
        open_session(network_model(layers, weights).SerializeToString(), runtime="onnxruntime") as reference,
    ):
        np.testing.assert_allclose(ours.run(images), reference.run(images), atol=2e-4)


def kinds(param: str) -> list[str]:
    """Layers with what tells their work: kernel, strides, groups, fused activations; names and numbers do not."""
    lines = [line.split() for line in param.splitlines()[2:]]
    work = {"0", "1", "2", "3", "4", "5", "6", "7", "9", "11", "12", "13", "14"}
    found = []
    for kind, _, n_in, n_out, *rest in lines:
        if kind not in ("Split", "Input"):
            values = sorted(part for part in rest[int(n_in) + int(n_out) :] if part.split("=")[0] in work)
            found.append(" ".join([kind, *values]))
    return sorted(found)


@pytest.mark.slow
def test_ncnn_models_are_what_pnnx_makes_of_the_onnx_graph(tmp_path):
    pytest.importorskip("pnnx")
    layers, weights = random_network(3)
    onnx.save(network_model(layers, weights), tmp_path / "net.onnx")
    pnnx = Path(sys.executable).with_name("pnnx")
    subprocess.run([pnnx, "net.onnx", "fp16=0"], cwd=tmp_path, check=True, capture_output=True)

    param, _ = ncnn_model(layers, weights)

    def rounded(text):
        return text.replace("0.16666666666666666", "0.166666672").replace("  ", " ")

    theirs = [line.replace(" 1=0 ", " ") for line in kinds((tmp_path / "net.ncnn.param").read_text())]
    assert [line.replace(" 1=0 ", " ") for line in kinds(rounded(param))] == theirs


def test_ncnn_blocks_stand_between_thin_convolutions_too(tmp_path):
    pytest.importorskip("ncnn")
    rng = np.random.default_rng(0)
    layer = some_block(shortcut="pool+conv")
    path = write_ncnn(tmp_path, ncnn_model([layer], random_weights([layer], rng), bordered=True))

    with open_session(path, runtime="ncnn") as session:
        found = session.run(np.ones((1, 1, layer.hw_in, layer.hw_in), dtype=np.float32))
    with open_session(write_ncnn(tmp_path, ncnn_border((6, 24))), runtime="ncnn") as session:
        border = session.run(np.ones((1, 1, 6, 6), dtype=np.float32))

    assert found.shape == (1, 1, layer.hw_out, layer.hw_out)
    np.testing.assert_allclose(border, 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (Target(precision="fp16"), "ONNX Runtime cannot be measured in fp16 .*CPU kernels compute in float32"),
        (Target(runtime="openvino", precision="fp16"), "OpenVINO cannot be measured in fp16"),
        (Target(runtime="ncnn", precision="fp16"), "benchncnn computes in float16"),
        (Target(runtime="ncnn", precision="int8"), "ncnn2table"),
        (Target(runtime="ncnn", batch=2), "at batch 2 here: ncnn runs one image at a time"),
        (Target(threads=4096), "--threads 4096 is more than this process may use"),
        (Target(runtime="tensorrt"), "--pack"),
        (Target(runtime="fingers"), "expected one of onnxruntime, openvino, ncnn"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(target, reason):
    if target.runtime in targets.LOCAL_RUNTIMES:
        pytest.importorskip(target.runtime)
    with pytest.raises(InputError, match=reason):
        check_target(target)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_int8_blocks_have_integer_convolutions(runtime):
    pytest.importorskip(runtime)
    rng = np.random.default_rng(0)
    model = int8_graph(bordered_model([some_block(shortcut="pool+conv")], rng=rng))

    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    makers = {node.output[0]: node.op_type for node in model.graph.node}
    assert len(convolutions) >= 6  # the thin ones too
    assert {makers[name] for node in convolutions for name in node.input[:2]} == {"DequantizeLinear"}
    prepare = make_prepare(Target(runtime=runtime, precision="int8"), rng=rng, quantise=int8_graph)
    elapsed, _ = prepare(Item(id="x", layers=(some_block(shortcut="pool+conv"),)))(1)
    assert elapsed > 0


def test_the_command_offers_what_the_library_knows():
    assert (*targets.LOCAL_RUNTIMES, *targets.REMOTE_RUNTIMES) == profile.RUNTIMES
    assert profile.PRECISIONS == targets.PRECISIONS


def test_the_command_refuses_before_it_measures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(main, ["profile", "--precision", "fp16"])

    assert result.exit_code == 2
    assert "ONNX Runtime cannot be measured in fp16" in result.stderr
    assert list(tmp_path.iterdir()) == []
