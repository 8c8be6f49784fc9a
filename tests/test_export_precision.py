"""Less precision: what is converted and what is not, what it costs, and that the budget of accuracy holds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from nas2edge.errors import InputError, ParityError, UnknownNameError
from nas2edge.export import int8, precision
from nas2edge.export.float16 import HEADROOM, LARGEST, to_float16
from nas2edge.export.int8 import quantisable_ops
from nas2edge.export.onnx_file import open_batch, open_model, run_model
from nas2edge.export.pipeline import ExportRequest, export
from nas2edge.export.qdq import audit, op_nodes, quantise
from nas2edge.export.ranges import BINS, CALIBRATORS, LEVELS, Observed, float_tensors, greatest_values, observe
from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.spaces import load_space
from nas2edge.subnet_file import SubnetFile
from nas2edge.supernet.checkpoint import load_supernet
from tests.export_run import write_run

SPACE = load_space("tiny")
LAYERS = plan(SPACE, SPACE.smallest())
IMAGES = np.random.default_rng(1).standard_normal((8, 3, 24, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return network_model(LAYERS, random_weights(LAYERS, np.random.default_rng(0)))


def batches():
    yield IMAGES


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    known = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return {value.name: value.type.tensor_type.elem_type for value in known.graph.value_info}


# --- float16 ---------------------------------------------------------------------------------------------------------


def test_float16_keeps_reductions_and_both_ends_in_float32(model):
    halved = to_float16(model, greatest_values(model, float_tensors(model), batches))

    onnx.checker.check_model(halved.model, full_check=True)
    assert [end.type.tensor_type.elem_type for end in (*halved.model.graph.input, *halved.model.graph.output)] == [1, 1]
    assert dict(halved.kept) == {
        name: "a reduction" for name in ("stages.2.blocks.0.se_mean", "stages.4.blocks.0.se_mean", "head.mean")
    }
    types = types_of(halved.model)
    assert types["stem.conv"] == types["stages.3.blocks.0"] == TensorProto.FLOAT16
    assert types["head.mean"] == TensorProto.FLOAT
    weights = [tensor for tensor in halved.model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert not weights


def test_float16_is_close_and_every_tensor_is_rounded(model):
    halved = to_float16(model, {}).model

    expected, got = run_model(model, IMAGES), run_model(halved, IMAGES)

    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 1e-2  # rounded to 11 bits, many times


def large(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """A network whose values inside the second block are so many times larger."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == "stages.1.blocks.0.expand.weight":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    return copy


def test_values_that_float16_does_not_hold_stay_in_float32(model):
    """Converted blindly they become infinite; a run that rounds every tensor shows it, ONNX Runtime alone does not."""
    wide = large(model, 3e4)
    greatest = greatest_values(wide, float_tensors(wide), batches)

    blind = to_float16(wide, {})
    careful = to_float16(wide, greatest)

    loosely = open_model(open_batch(blind.model)).run(None, {"images": IMAGES})[0]
    assert np.isfinite(loosely).all()
    assert not np.isfinite(run_model(blind.model, IMAGES)).all()
    expected, got = run_model(wide, IMAGES), run_model(careful.model, IMAGES)
    assert np.abs(got - expected).max() < 0.01 * np.abs(expected).max()
    reached = greatest["stages.1.blocks.0.expand"]
    assert reached > LARGEST
    assert careful.kept["stages.1.blocks.0.expand"] == f"values up to {reached:,.0f}; float16 ends at 65,504"


def test_values_near_the_end_of_float16_are_too_near(model):
    greatest = dict.fromkeys(float_tensors(model), 1.0)

    near = to_float16(model, {**greatest, "stem.conv": LARGEST / HEADROOM + 1})
    far = to_float16(model, {**greatest, "stem.conv": LARGEST / HEADROOM - 1})

    assert {"stem.conv", "stem.conv.sigmoid", "stem.conv.swish"} <= near.kept.keys()
    assert "stem.conv" not in far.kept


def test_weights_beyond_float16_stay_in_float32(model):
    halved = to_float16(large(model, 1e6), {})

    assert halved.kept["stages.1.blocks.0.expand"] == "weights beyond 65,504"
    kept = [tensor.name for tensor in halved.model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert kept == ["stages.1.blocks.0.expand.weight", "stages.1.blocks.0.expand.bias"]


def test_weights_that_lose_precision_are_counted(model):
    assert to_float16(large(model, 1e-7), {}).tiny_weights >= 16 * 48


# --- int8 ------------------------------------------------------------------------------------------------------------


def quantised(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    nodes = [op_nodes(model)[op] for op in quantisable_ops(LAYERS)]
    sources = [node.input[0] for node in model.graph.node if node.name in nodes]
    seen = observe(model, list(dict.fromkeys(sources)), batches)
    return quantise(model, nodes, {name: item.threshold("minmax") for name, item in seen.items()}), nodes


def test_int8_is_what_tensorrt_parses(model):
    """Symmetric, weights by channel, activations by tensor, biases in float, and nothing but convolutions."""
    made, nodes = quantised(model)

    onnx.checker.check_model(made, full_check=True)
    assert audit(made, nodes) == []
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert constants[node.input[2]].dtype == np.int8
            assert not constants[node.input[2]].any()
    assert constants["stages.0.blocks.0.depthwise.weight.int8.scale"].shape == (16,)
    assert constants["stages.0.blocks.0.depthwise.bias"].dtype == np.float32
    assert "stages.0.blocks.0.depthwise.weight" not in constants
    assert constants["stem.conv.weight"].dtype == constants["stages.2.blocks.0.se_reduce.weight"].dtype == np.float32


def test_int8_weights_are_rounded_by_hand(model):
    made, _ = quantised(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    weight = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}["head.mix.weight"]

    scale = np.abs(weight).max(axis=(1, 2, 3)) / 127
    expected = np.rint(weight / scale[:, None, None, None])

    assert np.abs(constants["head.mix.weight.int8"] - expected).max() <= 1  # ties may round either way in float32
    assert np.abs(constants["head.mix.weight.int8"]).max() == 127


def test_int8_is_close(model):
    made, _ = quantised(model)

    expected, got = run_model(model, IMAGES), run_model(made, IMAGES)

    assert 1e-4 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.2


def test_an_audit_finds_what_is_not_as_it_should_be(model):
    made, nodes = quantised(model)
    for tensor in made.graph.initializer:
        if tensor.name == "stages.0.blocks.0.depthwise.weight.int8.zero":
            tensor.CopyFrom(numpy_helper.from_array(np.full(16, 3, dtype=np.int8), tensor.name))
        if tensor.name == "stages.0.blocks.0.project.weight.int8.scale":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(0.1), tensor.name))

    assert audit(made, [*nodes[:-1], "stem.conv"]) == [
        "stages.0.blocks.0.depthwise: its weight has a zero point other than an int8 of 0",
        "stages.0.blocks.0.project: its weight has scales of shape (), expected (16,)",
        "head.mix (Conv) is quantised, and should not be",
        "stem.conv is not quantised, and should be",
    ]


def test_thresholds_by_hand():
    """A thousand values in the lower half and one outlier at the end."""
    counts = np.zeros(BINS, dtype=np.int64)
    counts[: BINS // 2] = 100
    counts[-1] = 1
    seen = Observed(greatest=2.0, counts=counts)

    assert seen.threshold("minmax") == 2.0
    assert seen.threshold("percentile") == pytest.approx(1.0, abs=0.01)
    assert 0.9 < seen.threshold("mse") < 1.4
    assert seen.clipped(1.5) == pytest.approx(1 / counts.sum())
    assert seen.clipped(2.0) == 0.0


def test_entropy_gives_up_an_outlier():
    values = np.append(np.abs(np.random.default_rng(0).standard_normal(50_000)), 40.0)
    counts = np.histogram(values, bins=BINS, range=(0, values.max()))[0]

    assert 2.5 < Observed(greatest=40.0, counts=counts).threshold("entropy") < 10.0


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_thresholds_of_a_tensor_that_is_zero(calibrator):
    counts = np.zeros(BINS, dtype=np.int64)
    counts[0] = 10
    assert 0.0 <= Observed(greatest=0.0, counts=counts).threshold(calibrator) == 0.0


def test_mse_is_the_least_squared_error():
    """Against every threshold, by brute force on the values themselves."""
    rng = np.random.default_rng(0)
    values = np.abs(rng.standard_normal(20_000)) ** 1.5
    counts = np.histogram(values, bins=BINS, range=(0, values.max()))[0]
    chosen = Observed(greatest=float(values.max()), counts=counts).threshold("mse")

    def error(threshold: float) -> float:
        step = threshold / LEVELS
        return float(((np.minimum(np.rint(values / step), LEVELS) * step - values) ** 2).mean())

    candidates = np.linspace(0.1, 1.0, 91) * values.max()
    assert error(chosen) <= 1.02 * min(error(candidate) for candidate in candidates)


# --- the budget ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    return load_supernet(str(write_run(tmp_path_factory.mktemp("run"))))


@pytest.fixture
def request_of(supernet, tmp_path):
    def make(**changes):
        request = ExportRequest(
            file=SubnetFile(space=SPACE, subnet=SPACE.smallest()), supernet=supernet, out=tmp_path / "bundle"
        )
        return replace(request, **changes)

    return make


def test_a_bundle_holds_every_precision_and_says_how_it_was_made(request_of):
    done = export(request_of(precisions=("fp32", "fp16", "int8")))

    names = {path.name for path in done.folder.iterdir()}
    assert {"model.onnx", "model.fp16.onnx", "model.int8.onnx"} <= names
    sizes = [row.size_bytes for row in done.rows]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < sizes[1]
    with np.load(done.folder / "parity.npz") as recorded:
        assert set(recorded) == {"images", "logits", "logits_fp16", "logits_int8"}
    report = json.loads((done.folder / "report.json").read_text())
    (found,) = (stage["details"] for stage in report["stages"] if stage["name"] == "int8")
    assert found["calibration_images"] == 40
    assert found["calibrator"] == max(found["calibrators_sqnr_db"], key=found["calibrators_sqnr_db"].get)
    blocks = [item["block"] for item in found["sensitivity"]]
    assert blocks == [layer.name for layer in LAYERS if layer.name != "stem"]
    assert "## Sensitivity to int8" in (done.folder / "report.md").read_text()


def test_int8_again_is_the_same_to_the_byte(request_of):
    first = export(request_of(precisions=("int8",)))
    again = export(request_of(precisions=("int8",)))

    assert first.changed is None
    assert again.changed == []


def test_the_most_sensitive_blocks_are_handed_back_until_the_budget_holds(request_of, monkeypatch):
    """Accuracy here: 100 % less ten points for every quantised block of the two that matter."""
    matter = {"stages.1.blocks.0", "stages.3.blocks.0"}
    made: dict[int, list[str]] = {}
    honest = int8.Int8.make

    def make(self, kept):
        reduced = honest(self, kept)
        made[id(reduced.model)] = [op.rpartition(".")[0] for op in reduced.details["quantised"]]
        keep_alive.append(reduced.model)
        return reduced

    keep_alive: list[onnx.ModelProto] = []
    run = precision.run_model

    def noted(model, images):
        logits = run(model, images)
        cost = 10.0 * len(matter & set(made.get(id(model), [])))
        return logits + np.float32(cost)

    def accuracy(logits, labels):
        return 100.0 - float(np.round(logits.mean() / 10) * 10)

    found = [
        precision.Sensitivity(block=layer.name, sqnr_db=10.0 if layer.name in matter else 40.0, flips=0, images=1)
        for layer in LAYERS[1:]
    ]
    monkeypatch.setattr(int8.Int8, "make", make)
    monkeypatch.setattr(precision, "run_model", noted)
    monkeypatch.setattr(precision, "accuracy_of", accuracy)
    monkeypatch.setattr(precision, "sensitivities", lambda *arguments: found)
    monkeypatch.setattr("nas2edge.export.to_onnx.accuracy_of", lambda logits, labels: 100.0)
    monkeypatch.setattr("nas2edge.export.pipeline.run_everywhere", lambda *arguments: None)

    done = export(request_of(precisions=("int8",), max_drop=2.5))

    stage = next(stage for stage in done.stages if stage.name == "int8")
    assert stage.details["handed_back"] == ["stages.1.blocks.0", "stages.3.blocks.0"]
    assert "handed back to float32: stages.1.blocks.0, stages.3.blocks.0" in stage.summary
    nodes = {node.name for node in onnx.load(done.folder / "model.int8.onnx").graph.node}
    assert "stages.1.blocks.0.expand.weight.int8.dq" not in nodes
    assert "stages.2.blocks.0.expand.weight.int8.dq" in nodes


def test_a_budget_that_nothing_keeps_fails(request_of, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "accuracy_of", lambda logits, labels: 0.0)
    monkeypatch.setattr("nas2edge.export.to_onnx.accuracy_of", lambda logits, labels: 90.0)

    with pytest.raises(
        ParityError, match=r"stage 'int8'.*top-1 drops by 90.00 points, allowed are 2.50 \(--max-drop\)"
    ):
        export(request_of(precisions=("int8",)))

    assert [path.name for path in tmp_path.iterdir()] == ["bundle.failed"]


def test_int8_beside_float16(request_of):
    done = export(request_of(precisions=("int8",), int8_rest="fp16", opset=19, keep_fp32=("stages.0.blocks.0",)))

    made = onnx.load(done.folder / "model.int8.onnx")
    types = types_of(made)
    assert types["stem.conv"] == types["stages.3.blocks.0"] == TensorProto.FLOAT16
    assert types["stages.0.blocks.0.project"] == TensorProto.FLOAT
    scales = {t.name: t.data_type for t in made.graph.initializer if "scale" in t.name}
    assert set(scales.values()) == {TensorProto.FLOAT16}


def test_blocks_are_kept_as_asked(request_of):
    done = export(request_of(precisions=("fp16", "int8"), keep_fp32=("head", "stages.0.blocks.0.depthwise")))

    halved = types_of(onnx.load(done.folder / "model.fp16.onnx"))
    assert halved["head.expand"] == halved["stages.0.blocks.0.depthwise"] == TensorProto.FLOAT
    assert halved["stages.0.blocks.0.project"] == TensorProto.FLOAT16
    nodes = {node.name for node in onnx.load(done.folder / "model.int8.onnx").graph.node}
    assert "head.expand.weight.int8.dq" not in nodes
    assert "stages.0.blocks.0.depthwise.weight.int8.dq" not in nodes
    assert "stages.0.blocks.0.project.weight.int8.dq" in nodes


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"precisions": ("int4",)}, UnknownNameError, "unknown precision 'int4'; did you mean 'int8'"),
        ({"calibrator": "entropie"}, UnknownNameError, "unknown calibrator 'entropie'; did you mean 'entropy'"),
        ({"keep_fp32": ("stages.9.blocks.0",)}, UnknownNameError, "unknown block 'stages.9.blocks.0'; did you mean"),
        ({"precisions": ("int8",), "int8_rest": "fp16"}, InputError, "needs opset 19 or newer, and the opset is 17"),
        ({"int8_rest": "int4"}, UnknownNameError, "unknown precision beside int8 'int4'"),
        ({"max_drop": -1.0}, InputError, "max-drop -1 is out of range; expected 0 to 100 points"),
        ({"exporter": "tensorflow"}, UnknownNameError, "unknown exporter 'tensorflow'; known: own, torch"),
    ],
)
def test_unusable_options_are_refused_before_any_work(request_of, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        export(request_of(**changes))

    assert not list(tmp_path.iterdir())


def test_nothing_left_to_quantise_is_said(request_of):
    with pytest.raises(InputError, match="nothing is left to quantise; name fewer blocks by --keep-fp32"):
        export(request_of(precisions=("int8",), keep_fp32=tuple(layer.name for layer in LAYERS)))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_the_embedded_supernet_loses_little(tmp_path: Path, which):
    """The budget of the project: float16 at most 0.1 points of top-1, int8 at most 1.0, on 2,000 images."""
    loaded = load_supernet()
    space = loaded.info.space
    file = SubnetFile(space=space, subnet=getattr(space, which)())

    done = export(ExportRequest(file=file, supernet=loaded, out=tmp_path / "bundle", precisions=("fp16", "int8")))

    assert done.accuracy["onnx"] - done.accuracy["fp16"] <= 0.1
    assert done.accuracy["onnx"] - done.accuracy["int8"] <= 1.0
