"""The export as a whole: what a bundle holds, that it is reproducible, and that no fault gets through."""

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from nas2edge.errors import CheckpointError, InputError, ParityError
from nas2edge.export import inputs, to_onnx
from nas2edge.export.pipeline import ExportRequest, ExportResult, export
from nas2edge.export.registry import load_exporter
from nas2edge.export.simplify import Simplified, simplify
from nas2edge.graph import network_model, newest_opset, random_weights
from nas2edge.plan import plan
from nas2edge.spaces import load_space
from nas2edge.subnet_file import SubnetFile
from nas2edge.supernet.checkpoint import LoadedSupernet, load_supernet
from nas2edge.supernet.evaluate import load_images, normalise
from nas2edge.supernet.static import extract, recalibrate
from tests.export_run import CLASSES, write_images, write_run
from tests.test_export_faults import one_wrong_weight

SPACE = load_space("tiny")


@pytest.fixture(scope="module")
def supernet(tmp_path_factory: pytest.TempPathFactory) -> LoadedSupernet:
    return load_supernet(str(write_run(tmp_path_factory.mktemp("run"))))


@pytest.fixture(scope="module")
def request_of(supernet: LoadedSupernet) -> Callable[..., ExportRequest]:
    def make(out: Path, **changes: Any) -> ExportRequest:
        file = SubnetFile(space=SPACE, subnet=SPACE.smallest())
        return replace(ExportRequest(file=file, supernet=supernet, targets=("onnx",), out=out), **changes)

    return make


@pytest.fixture(scope="module")
def result(request_of: Callable[..., ExportRequest], tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export(request_of(tmp_path_factory.mktemp("bundles") / "bundle"))


def test_every_stage_passes_in_order(result):
    names = [(stage.name, stage.verdict) for stage in result.stages if stage.name != "in openvino"]

    expected = ("freeze", "recalibrate", "fold", "onnx", "simplify", "input", "accuracy", "in onnxruntime")
    assert names == [(name, "passed") for name in expected]
    assert result.stages[0].details["max_abs"] == 0.0


def test_the_bundle_is_the_network_that_was_searched(result, supernet):
    """Taken through torch again, by hand: cut out, recalibrated, run on all validation images."""
    calibration, validation = (
        normalise(load_images(supernet, split), supernet.info.preprocess) for split in ("calibration", "validation")
    )
    net = extract(supernet.model, SPACE.smallest())
    recalibrate(net, [calibration])
    resized = torch.nn.functional.interpolate(validation, size=(24, 24), mode="bicubic")
    with torch.no_grad():
        expected = net(validation).numpy()

    session = ort.InferenceSession(result.folder / "model.onnx", providers=["CPUExecutionProvider"])
    got = np.concatenate([session.run(None, {"images": image[None]})[0] for image in resized.numpy()])

    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    assert result.accuracy["network"] == result.accuracy["onnx"]


def test_recorded_outputs_are_those_of_the_model(result):
    recorded = np.load(result.folder / "parity.npz")
    session = ort.InferenceSession(result.folder / "model.onnx", providers=["CPUExecutionProvider"])

    got = np.concatenate([session.run(None, {"images": image[None]})[0] for image in recorded["images"]])

    np.testing.assert_allclose(got, recorded["logits"], atol=1e-4)


def test_the_manifest_lists_every_file_with_its_hash(result):
    manifest = json.loads((result.folder / "manifest.json").read_text())
    names = {path.name for path in result.folder.iterdir()}

    assert manifest["format"], manifest["version"] == ("nas2edge.bundle", 1)
    assert set(manifest["files"]) | {"manifest.json"} == names
    for name, entry in manifest["files"].items():
        content = (result.folder / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["subnet"]["id"] == SPACE.smallest().id
    assert manifest["preprocess"]["resize"].startswith("bicubic (a = -0.75, align_corners off, no antialias) from 32")


def test_the_model_carries_its_origin(result, supernet):
    model = onnx.load(result.folder / "model.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}

    assert all(key.startswith("nas2edge.") for key in metadata)
    assert json.loads(metadata["nas2edge.labels"]) == list(CLASSES)
    assert json.loads(metadata["nas2edge.preprocess"])["mean"] == [0.5, 0.4, 0.3]
    assert metadata["nas2edge.supernet_sha256"] == supernet.info.sha256
    assert json.loads(metadata["nas2edge.subnet"]) == SPACE.smallest().to_dict()


def test_the_report_page_has_a_row_for_every_stage(result):
    page = (result.folder / "report.md").read_text()

    assert all(f"| {stage.name} | {stage.verdict} |" in page for stage in result.stages)
    assert "## Run it" in page


def test_exporting_again_gives_the_same_bytes(result, request_of, tmp_path):
    again = export(request_of(tmp_path / "again"))

    for name in ("model.onnx", "parity.npz", "report.json", "report.md", "manifest.json"):
        assert (again.folder / name).read_bytes() == (result.folder / name).read_bytes()


@pytest.mark.parametrize("batch", [(3, 3, 3), (1, 2, 8)])
def test_other_batch_sizes_pass(request_of, tmp_path, batch):
    done = export(request_of(tmp_path / "bundle", batch=batch, opset=13))

    (model_input,) = onnx.load(done.folder / "model.onnx").graph.input
    dim = model_input.type.tensor_type.shape.dim[0]
    assert (dim.dim_value, dim.dim_param) == ((3, "") if batch == (3, 3, 3) else (0, "batch"))
    assert all(stage.verdict == "passed" for stage in done.stages)
    (run,) = (stage.summary for stage in done.stages if stage.name == "in onnxruntime")
    assert ("batch 3;" if batch == (3, 3, 3) else "batch 1 and 2 and 8;") in run


def test_kept_statistics_are_said_to_be_kept(request_of, tmp_path):
    done = export(request_of(tmp_path / "bundle", recalibrate=0))

    assert (done.stages[1].name, done.stages[1].verdict) == ("recalibrate", "skipped")


def test_calibration_images_beside_the_weights_serve_where_the_data_have_none(request_of, tmp_path):
    data = write_images(tmp_path / "own.zip", ("validation",), images=1)

    done = export(request_of(tmp_path / "bundle", data=data))

    assert done.accuracy["images"] == 10
    assert done.stages[1].summary.startswith("batch-normalisation statistics from 40 calibration images; on them")


def test_a_missing_simplifier_is_no_failure(request_of, tmp_path, monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxsim" else known(name))

    done = export(request_of(tmp_path / "bundle"))

    stage = done.stages[4]
    assert (stage.name, stage.verdict) == ("simplify", "skipped")
    assert stage.summary == "onnxsim is not installed (extra: export); the graph stays as emitted"


def test_a_crashing_simplifier_is_no_failure(monkeypatch):
    def crash(model):
        raise RuntimeError("out of luck\nin detail")

    monkeypatch.setattr("onnxsim.simplify", crash)
    model = onnx.ModelProto()

    assert simplify(model) == Simplified(
        model=model, tried=False, note="onnxsim failed (out of luck); the graph stays as emitted"
    )


def test_a_simplifier_leaves_its_own_metadata_behind():
    layers = plan(SPACE, SPACE.smallest())
    weights = random_weights(layers, np.random.default_rng(0))
    model = network_model(layers, weights, metadata={"nas2edge.version": "x"})
    head = model.graph.node[-1]
    model.graph.node.append(onnx.helper.make_node("Identity", ["hidden"], [head.output[0]]))
    head.output[0] = "hidden"

    done = simplify(model)

    assert done.note.endswith(f": {len(model.graph.node)} nodes became {len(model.graph.node) - 1}")
    assert [entry.key for entry in done.model.metadata_props] == ["nas2edge.version"]


def test_an_accuracy_that_changes_fails(request_of, tmp_path, monkeypatch):
    """Logits that are close enough on the compared images excuse no other accuracy, not even a better one."""
    monkeypatch.setattr(inputs, "PARITY_IMAGES", 1)
    exporter = type(load_exporter("onnx"))
    honest = exporter.run

    def cheat(self, artefact, images):
        logits = honest(self, artefact, images)
        # The validation images stand sorted by class.
        return logits if len(images) == 1 else np.repeat(np.eye(10, dtype=np.float32), len(images) // 10, axis=0)

    monkeypatch.setattr(exporter, "run", cheat)

    with pytest.raises(ParityError, match="failed at the stage 'accuracy'"):
        export(request_of(tmp_path / "bundle"))


def test_an_older_bundle_outlives_a_failed_export(request_of, tmp_path, monkeypatch):
    out = export(request_of(tmp_path / "bundle")).folder
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(to_onnx, "network_model", one_wrong_weight)

    with pytest.raises(ParityError, match=r"the older bundle in .* is as it was"):
        export(request_of(out))

    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_weights_of_another_space_are_refused(request_of, tmp_path):
    other = replace(SPACE, num_classes=7)
    file = SubnetFile(space=other, subnet=other.smallest())

    with pytest.raises(CheckpointError, match="the sub-network is of space 'tiny', the supernet of 'tiny' with 10"):
        export(request_of(tmp_path / "bundle", file=file))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opset": 12}, "opset 12 is out of range; expected 13 to"),
        ({"opset": newest_opset() + 1}, "is out of range"),
        ({"recalibrate": 1}, "one image has no variance"),
    ],
)
def test_options_out_of_range_are_refused_before_any_work(request_of, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        export(request_of(tmp_path / "bundle", **changes))

    assert not list(tmp_path.iterdir())
