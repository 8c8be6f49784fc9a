"""Planted faults: each is found at its stage, named with its layer, and kept as a failed bundle."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from nas2edge.errors import ParityError
from nas2edge.export import from_supernet, half, inputs, int8, manifest, to_onnx
from nas2edge.export.float16 import Halved, to_float16
from nas2edge.export.pipeline import ExportRequest, export
from nas2edge.export.preprocess import bake, rule_of
from nas2edge.export.qdq import op_nodes, quantise
from nas2edge.export.simplify import Simplified
from nas2edge.graph import fold_batch_norm, network_model
from nas2edge.spaces import load_space
from nas2edge.subnet_file import SubnetFile
from nas2edge.supernet.checkpoint import LoadedSupernet, load_supernet
from nas2edge.supernet.evaluate import normalise
from nas2edge.supernet.static import extract, recalibrate
from tests.export_run import write_run

SPACE = load_space("tiny")


@pytest.fixture(scope="module")
def supernet(tmp_path_factory: pytest.TempPathFactory) -> LoadedSupernet:
    return load_supernet(str(write_run(tmp_path_factory.mktemp("run"))))


@pytest.fixture
def fails(supernet: LoadedSupernet, tmp_path: Path) -> Callable[..., str]:
    """Exports, expects failure at a stage, and returns what was said of it."""

    def check(stage: str, **changes: Any) -> str:
        out = tmp_path / "bundle"
        request = ExportRequest(file=SubnetFile(space=SPACE, subnet=SPACE.smallest()), supernet=supernet, out=out)
        with pytest.raises(ParityError, match=f"failed at the stage '{stage}'") as raised:
            export(replace(request, **changes))
        assert raised.value.exit_code == 4
        assert [path.name for path in tmp_path.iterdir()] == ["bundle.failed"]
        failed = tmp_path / "bundle.failed"
        assert not (failed / "manifest.json").exists()
        report = json.loads((failed / "report.json").read_text())
        assert report["passed"] is False
        assert [entry["name"] for entry in report["stages"] if entry["verdict"] == "failed"] == [stage]
        assert (failed / "report.md").read_text().splitlines()[2].startswith(f"**Failed at: {stage}.**")
        return str(raised.value)

    return check


def wrong_variance(layers, state):
    """Folds with variances that are two percent too large."""
    changed = {name: value * 1.02 if name.endswith("running_var") else value for name, value in state.items()}
    return fold_batch_norm(layers, changed)


def swapped_channels(layers, state):
    """Swaps two channels of one depthwise convolution."""
    folded = fold_batch_norm(layers, state)
    weight = folded["stages.1.blocks.0.depthwise.weight"]
    weight[[0, 1]] = weight[[1, 0]]
    return folded


def one_wrong_weight(layers, weights, **options):
    """Writes a graph in which one value of one weight has the wrong sign."""
    wrong = {name: value.copy() for name, value in weights.items()}
    project = wrong["stages.3.blocks.0.project.weight"]
    worst = np.unravel_index(np.abs(project).argmax(), project.shape)
    project[worst] = -project[worst]
    return network_model(layers, wrong, **options)


def wrong_padding(layers, weights, **options):
    """Leaves the padding of one depthwise convolution to one side."""
    model = network_model(layers, weights, **options)
    (node,) = (node for node in model.graph.node if node.name == "stages.2.blocks.0.depthwise")
    for attribute in node.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [0, 0, 2, 2]
    return model


def rounding_simplifier(model):
    """A simplifier that rounds weights to two decimals."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).round(2), tensor.name))
    return Simplified(model=copy, tried=True, note="rounds")


def replaced_activation(layers, weights, **options):
    """Writes ReLU where one swish belongs."""
    model = network_model(layers, weights, **options)
    (sigmoid,) = (node for node in model.graph.node if node.name == "stages.4.blocks.0.depthwise.sigmoid")
    sigmoid.op_type = "HardSigmoid"
    return model


def swapped_planes(layers, weights, **options):
    """Reads the images as BGR."""
    flipped = {name: value[:, ::-1] if name == "stem.conv.weight" else value for name, value in weights.items()}
    return network_model(layers, flipped, **options)


@pytest.mark.parametrize(
    ("module", "name", "fault", "stage", "blamed"),
    [
        (from_supernet, "fold_batch_norm", wrong_variance, "fold", "stem"),
        (from_supernet, "fold_batch_norm", swapped_channels, "fold", "stages.1.blocks.0"),
        (to_onnx, "network_model", one_wrong_weight, "onnx", "stages.3.blocks.0"),
        (to_onnx, "network_model", wrong_padding, "onnx", "stages.2.blocks.0"),
        (to_onnx, "network_model", replaced_activation, "onnx", "stages.4.blocks.0"),
        (to_onnx, "network_model", swapped_planes, "onnx", "stem"),
        (to_onnx, "simplify", rounding_simplifier, "simplify", "stem"),
    ],
)
def test_a_fault_of_the_network_is_blamed_on_its_block(fails, monkeypatch, module, name, fault, stage, blamed):
    monkeypatch.setattr(module, name, fault)

    assert f"the first block that differs is {blamed} " in fails(stage)


def test_a_wrong_slice_fails_exactly(fails, monkeypatch):
    """The least change of one statistic is seen, since the first stage allows no difference at all."""

    def off_by_little(supernet, subnet):
        net = extract(supernet, subnet)
        cast(torch.Tensor, net.get_submodule("stem.conv.bn").running_mean)[3] += 1e-3
        return net

    monkeypatch.setattr(from_supernet, "extract", off_by_little)

    assert "a logit differs by" in fails("freeze")


def test_stale_statistics_are_seen_though_every_form_has_them(fails, monkeypatch):
    """Those of one layer suffice; the network would be the same network at every later stage."""

    def forgotten(net, batches):
        recalibrate(net, batches)
        bn = net.get_submodule("stages.2.blocks.0.project.bn")
        bn.reset_running_stats()

    monkeypatch.setattr(from_supernet, "recalibrate", forgotten)

    said = fails("recalibrate")
    assert "the batch-normalisation statistics are not those of the 40 calibration images" in said
    assert "stages.2.blocks.0.project" in said


def test_statistics_of_the_supernet_are_stale(fails, monkeypatch):
    monkeypatch.setattr(from_supernet, "recalibrate", lambda net, batches: None)

    assert "standard deviations off, its variances by a factor of" in fails("recalibrate")


def wrong_mean(preprocess, *arguments, **options):
    """The rule with another mean."""
    return rule_of(replace(preprocess, mean=(0.485, 0.456, 0.406)), *arguments, **options)


def test_a_wrong_rule_in_the_metadata_is_seen(fails, monkeypatch):
    monkeypatch.setattr(manifest, "rule_of", wrong_mean)

    said = fails("input")
    assert "mean [0.485, 0.456, 0.406]" in said
    assert "images prepared by that rule are not those of the search: values differ by up to" in said


def test_a_normalisation_other_than_that_of_the_file_is_seen(fails, monkeypatch):
    """The images of the checks themselves were prepared wrongly."""

    def without_std(images, preprocess):
        return normalise(images, replace(preprocess, std=(1.0, 1.0, 1.0)))

    monkeypatch.setattr(inputs, "normalise", without_std)

    assert "images prepared by that rule are not those of the search" in fails("input")


def test_a_wrong_normalisation_inside_the_model_is_seen(fails, monkeypatch):
    def wrong(model, preprocess):
        return bake(model, replace(preprocess, std=(0.25, 0.25, 0.25)))

    monkeypatch.setattr(to_onnx, "bake", wrong)

    said = fails("input", with_preprocess=True)
    assert "the fault lies before the first block" in said


def with_squeeze(model, nodes, thresholds):
    """Quantises squeeze-and-excitation too."""
    more = {op: node for op, node in op_nodes(model).items() if ".se_" in op}
    sources = {node.input[0] for node in model.graph.node if node.name in more.values()}
    return quantise(model, [*nodes, *more.values()], {**dict.fromkeys(sources, 4.0), **thresholds})


def with_gate(model, nodes, thresholds):
    """Quantises both factors of the multiplication by the gate, as quantisers by operator do."""
    made = quantise(model, nodes, thresholds)
    copy = onnx.ModelProto()
    copy.CopyFrom(made)
    del copy.graph.node[:]
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")
    copy.graph.initializer.extend([scale, zero])
    for node in made.graph.node:
        if node.name == "stages.2.blocks.0.se":
            for i, name in enumerate(node.input):
                quantised, back = f"{name}.gate", f"{name}.gate.float"
                copy.graph.node.append(helper.make_node("QuantizeLinear", [name, "s", "z"], [quantised]))
                copy.graph.node.append(helper.make_node("DequantizeLinear", [quantised, "s", "z"], [back]))
                node.input[i] = back
        copy.graph.node.append(node)
    return copy


@pytest.mark.parametrize(
    ("fault", "named"),
    [(with_squeeze, "stages.2.blocks.0.se_reduce (Conv)"), (with_gate, "stages.2.blocks.0.se (Mul)")],
)
def test_a_quantised_squeeze_and_excitation_is_seen(fails, monkeypatch, fault, named):
    """Even where the accuracy is the same: it is read in the graph."""
    monkeypatch.setattr(int8, "quantise", fault)

    assert f"{named} is quantised, and should not be" in fails("int8", precisions=("int8",))


def test_an_activation_replaced_in_float16_is_seen(fails, monkeypatch):
    def halved(*arguments, **options) -> Halved:
        found = to_float16(*arguments, **options)
        for node in found.model.graph.node:
            if node.op_type == "Sigmoid":
                node.op_type = "HardSigmoid"
        return found

    monkeypatch.setattr(half, "to_float16", halved)

    said = fails("fp16", precisions=("fp16",))
    assert "the least cosine is" in said
    assert "worst blocks: " in said
    assert "try --keep-fp32 " in said
