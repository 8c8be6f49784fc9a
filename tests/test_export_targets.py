"""The targets that run on this machine: each one's artefact computes what the ONNX file does, or is refused clearly."""

import importlib.util
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas2edge.errors import EngineNotBuiltError, RuntimeFailedError
from nas2edge.export.float16 import to_float16
from nas2edge.export.registry import load_exporter
from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.runtimes import open_session, run_all
from nas2edge.space import SearchSpace
from nas2edge.spaces import load_space

PACKAGES = {"openvino": ("openvino",), "ncnn": ("ncnn", "pnnx"), "ort": ("onnxruntime",)}
FIXED, RANGE = (1, 1, 1), (1, 2, 4)


def images(space: SearchSpace, n: int = 5) -> np.ndarray:
    side = max(space.resolution)
    return np.random.default_rng(1).standard_normal((n, 3, side, side)).astype(np.float32)


def write_model(folder: Path, space: SearchSpace, *, batch: int | None = 1, opset: int = 17) -> Path:
    layers = plan(space, space.largest())
    model = network_model(layers, random_weights(layers, np.random.default_rng(0)), batch=batch, opset=opset)
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def built(target: str, model: Path, batch: tuple[int, int, int] = FIXED):
    for package in PACKAGES[target]:
        pytest.importorskip(package)
    exporter = load_exporter(target)
    return exporter, exporter.build(model, batch=batch)


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("target", PACKAGES)
def test_it_computes_what_the_onnx_file_does(target, opset, tmp_path, tiny_space):
    model = write_model(tmp_path, tiny_space, opset=opset)
    given = images(tiny_space)
    with open_session(model, runtime="onnxruntime") as session:
        expected = run_all(session, given)

    exporter, artefact = built(target, model)

    np.testing.assert_allclose(exporter.run(artefact, given), expected, atol=1e-5 * abs(expected).max())
    assert not artefact.why_not_run
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", *(file.name for file in artefact.files)}


@pytest.mark.parametrize("target", ["openvino", "ort"])
@pytest.mark.parametrize(("size", "batch"), [(None, RANGE), (2, (2, 2, 2))])
def test_other_batch_sizes_are_kept(target, size, batch, tmp_path, tiny_space):
    exporter, artefact = built(target, write_model(tmp_path, tiny_space, batch=size), batch)

    given = images(tiny_space)
    one_by_one = np.concatenate([exporter.run(artefact, image[None]) for image in given])
    np.testing.assert_allclose(exporter.run(artefact, given), one_by_one, atol=1e-5)


@pytest.mark.parametrize("target", PACKAGES)
def test_equal_models_are_equal_files_where_that_is_said(target, tmp_path, tiny_space):
    made = [built(target, write_model(tmp_path / name, tiny_space)) for name in ("a", "b")]

    first, second = ([file.read_bytes() for file in artefact.files] for _, artefact in made)
    assert not made[0][0].hashable or first == second


def test_weights_of_openvino_and_ncnn_stay_float32(tmp_path, tiny_space):
    model = write_model(tmp_path, tiny_space)
    weights = sum(numpy_helper.to_array(weight).nbytes for weight in onnx.load(model).graph.initializer)

    for target in ("openvino", "ncnn"):
        _, artefact = built(target, model)
        assert artefact.files[1].stat().st_size >= weights


def test_ncnns_blobs_are_named_for_the_application(tmp_path, tiny_space):
    _, artefact = built("ncnn", write_model(tmp_path, tiny_space))

    with open_session(artefact.files[0], runtime="ncnn") as session:
        assert (session.input.name, session.output.name) == (artefact.notes["input"], artefact.notes["output"])


@pytest.mark.parametrize(
    ("size", "batch", "message"),
    [
        (None, RANGE, "it takes no range of batch sizes, and 1:2:4 is one; give one size"),
        (4, (4, 4, 4), "it takes images one by one, and the batch size is 4; give --batch 1"),
    ],
)
def test_ncnn_has_no_batches(size, batch, message, tmp_path, tiny_space):
    with pytest.raises(EngineNotBuiltError, match=f"no ncnn artefact was made: {message}. The ONNX file is complete"):
        built("ncnn", write_model(tmp_path, tiny_space, batch=size), batch)


def test_ncnn_takes_no_quantized_graph(tmp_path):
    scale = [numpy_helper.from_array(np.float32(0.1), "scale"), numpy_helper.from_array(np.int8(0), "zero")]
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["logits"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("images", "logits")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], scale)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), tmp_path / "model.onnx")

    with pytest.raises(EngineNotBuiltError, match="QuantizeLinear: quantized networks are not accepted"):
        built("ncnn", tmp_path / "model.onnx")


@pytest.mark.parametrize(("target", "said"), [("openvino", "OpenVINO does not"), ("ort", "onnxruntime .* does not")])
def test_what_the_converter_does_not_read_is_told(target, said, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07 not a model")

    with pytest.raises(EngineNotBuiltError, match=f"no {target} artefact was made: {said} convert the ONNX file: .+"):
        built(target, tmp_path / "model.onnx")


def test_an_operator_that_ncnn_lacks_is_named(tmp_path):
    node = helper.make_node("LpNormalization", ["images"], ["logits"])
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 4]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4]),
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(EngineNotBuiltError, match="ncnn .* has no layer for LpNormalization"):
        built("ncnn", tmp_path / "model.onnx")


@pytest.mark.parametrize(("target", "package"), [("openvino", "openvino"), ("ncnn", "pnnx")])
def test_a_missing_package_leaves_the_onnx_file(target, package, tmp_path, tiny_space, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else name)

    with pytest.raises(
        EngineNotBuiltError, match=rf"{package}, which is not installed.*nas2edge\[{target}\]"
    ) as raised:
        load_exporter(target).build(write_model(tmp_path, tiny_space), batch=FIXED)
    assert raised.value.exit_code == 3


def test_a_damaged_artefact_is_said_to_be_so(tmp_path, tiny_space):
    exporter, artefact = built("ort", write_model(tmp_path, tiny_space))
    artefact.files[0].write_bytes(artefact.files[0].read_bytes()[:100])

    with pytest.raises(RuntimeFailedError, match="does not load the model"):
        exporter.run(artefact, images(tiny_space))


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_tflite_computes_what_the_onnx_file_does(n, tmp_path, tiny_space):
    """The converter itself takes some ten seconds of imports."""
    pytest.importorskip("ai_edge_litert", reason="pip install 'nas2edge[tflite]'")
    model, given = write_model(tmp_path, tiny_space, batch=n), images(tiny_space)
    with open_session(model, runtime="onnxruntime") as session:
        expected = run_all(session, given)

    exporter = load_exporter("tflite")
    artefact = exporter.build(model, batch=(n, n, n))

    np.testing.assert_allclose(exporter.run(artefact, given), expected, atol=1e-5 * abs(expected).max())
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.tflite"}


@pytest.mark.parametrize("space", ["tiny", "attentivenas"])
def test_the_module_that_tflite_is_made_from_computes_what_the_onnx_file_does(space, tmp_path):
    torch = pytest.importorskip("torch")
    from nas2edge.exporters._litert_convert import OnnxModule

    layers = plan(load_space(space), load_space(space).smallest())
    model = network_model(layers, random_weights(layers, np.random.default_rng(0)))
    given = np.random.default_rng(1).standard_normal((1, 3, layers[0].hw_in, layers[0].hw_in)).astype(np.float32)
    with open_session(model.SerializeToString(), runtime="onnxruntime") as session:
        expected = session.run(given)

    with torch.no_grad():
        got = OnnxModule(model)(torch.from_numpy(given)).numpy()

    np.testing.assert_allclose(got, expected, atol=1e-5 * abs(expected).max())


def test_an_operator_that_tflite_is_not_given_is_named(tmp_path):
    for package in ("litert_torch", "ai_edge_litert"):
        if importlib.util.find_spec(package) is None:
            pytest.skip("pip install 'nas2edge[tflite]'")
    node = helper.make_node("Cos", ["images"], ["logits"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("images", "logits")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), tmp_path / "model.onnx")

    with pytest.raises(EngineNotBuiltError, match="no tflite artefact was made: N2E-L103 logits: Cos is not accepted"):
        load_exporter("tflite").build(tmp_path / "model.onnx", batch=FIXED)


def test_a_float16_model_becomes_ncnn_with_halves(tmp_path, tiny_space):
    """The values are the model's own; casts, and which end they are at, make no difference."""
    model = write_model(tmp_path, tiny_space)
    given = images(tiny_space)
    onnx.save(to_float16(onnx.load(model), defaultdict(float)).model, tmp_path / "model.fp16.onnx")
    with open_session(tmp_path / "model.fp16.onnx", runtime="onnxruntime") as session:
        expected = run_all(session, given)

    exporter, whole = built("ncnn", model)
    artefact = exporter.build(tmp_path / "model.fp16.onnx", batch=FIXED)

    assert artefact.files[1].name == "model.fp16.ncnn.bin"
    assert artefact.files[1].stat().st_size < 0.7 * whole.files[1].stat().st_size
    np.testing.assert_allclose(exporter.run(artefact, given), expected, atol=0.01 * abs(expected).max())
