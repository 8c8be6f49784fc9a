"""What can be timed, and what a network costs without a clock."""

import json
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nas2edge.bench.artefact import find_artefact
from nas2edge.bench.footprint import Footprint, format_figure, read_footprint
from nas2edge.costs import count
from nas2edge.errors import FormatError, InputError, MissingDependencyError, UnknownNameError
from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.spaces import load_space
from tests.bench_nets import chain


def bundle(folder, artefacts, **more):
    manifest = {"format": "nas2edge.bundle", "version": 1, "artefacts": artefacts, **more}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def test_a_file_is_run_by_the_first_runtime_that_loads_it(tmp_path):
    path = chain(tmp_path, 1)

    assert find_artefact(str(path)).runtime == "onnxruntime"
    assert find_artefact(str(path), runtime="openvino").runtime == "openvino"


def test_a_bundle_gives_what_it_was_made_for_where_that_runs(tmp_path):
    chain(tmp_path, 1).rename(tmp_path / "model.onnx")
    (tmp_path / "model.xml").write_text("<net/>")
    (tmp_path / "model.engine").write_bytes(b"engine")
    onnx_entry = {"target": "onnx", "files": ["model.onnx"], "run_here": True}
    preprocess = {"preprocess": {"resolution": 8}, "batch": [1, 2, 4]}

    plain = find_artefact(
        bundle(tmp_path, [onnx_entry, {"files": ["model.xml", "model.bin"], "run_here": True}], **preprocess)
    )
    assert (plain.path.name, plain.runtime, plain.shape) == ("model.xml", "openvino", (2, 3, 8, 8))
    pixels = {"preprocess": {"resolution": 8, "layout": "NHWC"}, "batch": [1, 1, 1]}
    assert find_artefact(bundle(tmp_path, [onnx_entry], **pixels)).shape == (1, 8, 8, 3)
    engine = find_artefact(bundle(tmp_path, [onnx_entry, {"files": ["model.engine"], "run_here": False}]))
    assert (engine.path.name, engine.runtime) == ("model.onnx", "onnxruntime")
    assert find_artefact(str(tmp_path), runtime="openvino").path.name == "model.onnx"
    with pytest.raises(InputError, match="has no file that ncnn loads"):
        find_artefact(str(tmp_path), runtime="ncnn")


@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx"])
def test_an_engine_is_timed_where_either_package_is_installed(package, tmp_path, monkeypatch):
    (tmp_path / "net.engine").write_bytes(b"")
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, object() if name == package else None)
    assert find_artefact(str(tmp_path / "net.engine")).runtime == "tensorrt"
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"running a network by tensorrt .*nas2edge\[tensorrt\]"):
        find_artefact(str(tmp_path / "net.engine"))


def test_of_a_bundle_whose_engine_ran_elsewhere_the_onnx_file_is_taken(tmp_path, monkeypatch):
    """TensorRT may be installed where there is no GPU."""
    chain(tmp_path, 1).rename(tmp_path / "model.onnx")
    (tmp_path / "model.engine").write_bytes(b"engine")
    monkeypatch.setitem(sys.modules, "tensorrt", object())
    folder = bundle(tmp_path, [{"files": ["model.engine"], "run_here": True}])
    for gpu, memory, name in ((None, None, "model.onnx"), ("Orin", None, "model.onnx"), ("Orin", 1, "model.engine")):
        monkeypatch.setattr("nas2edge.runtimes.registry.find_gpu", lambda gpu=gpu: gpu)
        monkeypatch.setattr("nas2edge.runtimes.registry.find_memory", lambda memory=memory: memory)
        assert find_artefact(folder).path.name == name


def test_what_cannot_be_timed_is_refused_with_a_way_on(tmp_path):
    (tmp_path / "subnet.json").write_text("{}")
    (tmp_path / "net.h5").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"is no network that can be timed; export it first: nas2edge export .*subnet.json"
    ):
        find_artefact(str(tmp_path / "subnet.json"))
    with pytest.raises(InputError, match="there is no file or bundle"):
        find_artefact(str(tmp_path / "none.onnx"))
    with pytest.raises(InputError, match="is no bundle: it has no manifest.json"):
        find_artefact(str(tmp_path))
    with pytest.raises(InputError, match=r"no runtime here loads .*net.h5"):
        find_artefact(str(tmp_path / "net.h5"))
    with pytest.raises(InputError, match=r"ncnn does not load .*; it loads files that end in .param"):
        find_artefact(str(chain(tmp_path, 1)), runtime="ncnn")
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        find_artefact(str(chain(tmp_path, 1)), runtime="onnxrutime")


@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_macs_of_the_file_are_those_of_the_plan(end, tmp_path):
    """Parameters differ: folded, a batch normalisation is a bias, one value a channel instead of two."""
    space = load_space("tiny")
    layers = plan(space, getattr(space, end)())
    model = network_model(layers, random_weights(layers, np.random.default_rng(0)))
    onnx.save(model, tmp_path / "net.onnx")
    found = read_footprint(find_artefact(str(tmp_path / "net.onnx")))

    assert found.macs == count(layers).macs
    assert found.params == sum(np.prod(tensor.dims) for tensor in model.graph.initializer)
    assert found.size_bytes == (tmp_path / "net.onnx").stat().st_size
    assert found.nodes == len(model.graph.node)


def test_a_hand_worked_graph_is_counted_right(tmp_path):
    """Conv 2 -> 4 channels, 3x3 on 4x4 without padding, then Flatten and Gemm 16 -> 5.

    MACs: 4*2*2 positions x 2*9 = 288, and 16*5 = 80. Memory in bytes: input 128 and conv 64 together 192; the
    flattened view takes none; then 64 + 20.
    """
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("Flatten", ["y"], ["z"]),
        helper.make_node("Gemm", ["z", "v", "b"], ["out"], transB=1),
    ]
    weights = [
        onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in (("w", (4, 2, 3, 3)), ("v", (5, 16)), ("b", (5,)))
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 5])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "g.onnx")
    found = read_footprint(find_artefact(str(tmp_path / "g.onnx")))

    assert (found.macs, found.params, found.nodes, found.peak_activation_bytes) == (368, 72 + 80 + 5, 3, 192)
    batch = read_footprint(find_artefact(str(tmp_path / "g.onnx"), shape=(3, 2, 4, 4)))
    assert (batch.macs, batch.peak_activation_bytes) == (3 * 368, 3 * 192)


def test_other_formats_say_what_can_be_read(tmp_path):
    (tmp_path / "net.xml").write_text(
        '<net><layers><layer type="Parameter"/><layer type="Const"/><layer type="Convolution"/></layers></net>'
    )
    (tmp_path / "net.bin").write_bytes(bytes(1000))
    (tmp_path / "net.param").write_text("7767517\n2 2\nInput in0 0 1 in0\nConvolution c 1 1 in0 out0 0=4\n")
    (tmp_path / "net.ort").write_bytes(bytes(77))

    openvino, ncnn, ort = (read_footprint(find_artefact(str(tmp_path / f"net.{s}"))) for s in ("xml", "param", "ort"))
    assert (openvino.nodes, ncnn.nodes, ort) == (1, 1, Footprint(size_bytes=77))
    assert openvino.size_bytes == 1000 + (tmp_path / "net.xml").stat().st_size


@pytest.mark.parametrize(("name", "content"), [("a.onnx", b"\x08\x07 no"), ("a.xml", b"<net"), ("a.param", b"no")])
def test_damaged_files_are_said_to_be_so(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=f"{name} is no .* that reads"):
        read_footprint(find_artefact(str(tmp_path / name)))


def test_figures_are_written_with_their_units():
    found = [format_figure("macs", 11_361_920), format_figure("size_bytes", 2_837_810), format_figure("nodes", 138)]

    assert found == ["11.36M", "2.838 MB", "138"]


def test_a_footprint_of_a_file_is_checked():
    assert Footprint.from_dict({"macs": 3}) == Footprint(macs=3)
    for raw in ({"macs": -1}, {"macs": 1.5}, {"mac": 1}, []):
        with pytest.raises(FormatError):
            Footprint.from_dict(raw)
