"""The graph of torch.onnx.export and our own: one network, whoever wrote it."""

import importlib.util
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from nas2edge.errors import InputError
from nas2edge.export.onnx_file import run_model
from nas2edge.export.pipeline import ExportRequest, export
from nas2edge.export.torch_exporter import torch_model
from nas2edge.graph import fold_batch_norm, network_model
from nas2edge.spaces import load_space
from nas2edge.subnet_file import SubnetFile
from nas2edge.supernet.checkpoint import load_supernet
from nas2edge.supernet.static import StaticNet, extract
from tests.export_run import write_run

SPACE = load_space("tiny")
AGREEMENT = 1e-6
"""Of the greatest difference of a logit to the greatest logit."""


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    return load_supernet(str(write_run(tmp_path_factory.mktemp("run"))))


def both(net: StaticNet, *, opset: int, batch: int | None) -> tuple[onnx.ModelProto, onnx.ModelProto, str]:
    folded = fold_batch_norm(net.layers, {name: value.numpy() for name, value in net.state_dict().items()})
    own = network_model(net.layers, folded, opset=opset, batch=batch, metadata={"a": "b"})
    theirs, by = torch_model(net, folded, opset=opset, batch=batch, metadata={"a": "b"})
    onnx.checker.check_model(theirs, full_check=True)
    return own, theirs, by


def disagreement(own: onnx.ModelProto, theirs: onnx.ModelProto, side: int) -> float:
    images = np.random.default_rng(0).standard_normal((16, 3, side, side)).astype(np.float32)
    expected, got = run_model(own, images), run_model(theirs, images)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("opset", "batch"), [(13, 4), (17, None)])
@pytest.mark.parametrize("which", range(4))
def test_torchscript_and_our_emitter_agree(supernet, which, opset, batch):
    """The embedded supernet's space, from smallest to largest and two in between."""
    members = [SPACE.smallest(), SPACE.largest(), *SPACE.decode(SPACE.sample(2, np.random.default_rng(0)))]
    own, theirs, by = both(extract(supernet.model, members[which]), opset=opset, batch=batch)

    assert by == "TorchScript"
    assert disagreement(own, theirs, members[which].resolution) <= AGREEMENT
    assert [node.name for node in theirs.graph.node] == [node.name for node in own.graph.node]
    assert [entry.key for entry in theirs.metadata_props] == ["a"]
    assert theirs.graph.input[0] == own.graph.input[0]


def test_they_agree_on_trained_weights():
    net = extract(load_supernet().model, SPACE.smallest())
    own, theirs, _ = both(net, opset=17, batch=1)

    assert disagreement(own, theirs, 24) <= AGREEMENT


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="needs: pip install onnxscript")
@pytest.mark.parametrize(("opset", "batch"), [(18, 1), (20, None)])
def test_torch_export_and_our_emitter_agree(supernet, opset, batch):
    own, theirs, by = both(extract(supernet.model, SPACE.smallest()), opset=opset, batch=batch)

    assert by == "torch.export"
    assert disagreement(own, theirs, 24) <= AGREEMENT
    assert [node.name for node in theirs.graph.node] == [node.name for node in own.graph.node]


def test_a_bundle_by_torch_passes_every_stage(supernet, tmp_path):
    file = SubnetFile(space=SPACE, subnet=SPACE.smallest())
    request = ExportRequest(file=file, supernet=supernet, out=tmp_path / "bundle", exporter="torch")

    done = export(replace(request, precisions=("fp16", "int8"), with_preprocess=True))

    assert all(stage.verdict == "passed" for stage in done.stages)
    (stage,) = (stage for stage in done.stages if stage.name == "onnx")
    assert "by torch.onnx.export (TorchScript)" in stage.summary


def test_an_opset_that_torch_refuses_is_said(supernet, monkeypatch):
    def refuse(*arguments, **options):
        raise torch.onnx.errors.UnsupportedOperatorError("aten::thing", 17, None)

    monkeypatch.setattr(torch.onnx, "export", refuse)

    with pytest.raises(InputError, match=r"\(TorchScript\) does not export opset 17: .*; use --exporter own"):
        both(extract(supernet.model, SPACE.smallest()), opset=17, batch=1)
