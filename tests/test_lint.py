"""The linter of ONNX files: each rule on a file that breaks it and on one that does not, and the real parsers too."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from nas2edge.cli import main
from nas2edge.errors import EngineNotBuiltError, FormatError, InputError, UnknownNameError
from nas2edge.export.lint import lint, read_model
from nas2edge.export.lint_rules import RULE_IDS
from nas2edge.export.lint_targets import FILE, lint_target_names, load_target
from nas2edge.export.registry import load_exporter
from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.spaces import load_space

FLOAT = TensorProto.FLOAT


def network(space: str = "tiny", *, opset: int = 17, batch: int | None = 1) -> onnx.ModelProto:
    layers = plan(load_space(space), load_space(space).largest())
    return network_model(layers, random_weights(layers, np.random.default_rng(0)), opset=opset, batch=batch)


def one_node(
    op: str, *, shape: tuple[int | str, ...] = (1, 8, 8, 8), type: int = FLOAT, opset: int = 17, domain: str = "",
    weights: tuple[tuple[str, Any], ...] = (), **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    node = helper.make_node(op, ["x", *(name for name, _ in weights)], ["y"], name="node", domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", type, shape)],
        [helper.make_tensor_value_info("y", type, shape) if domain else onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, ir_version=8, opset_imports=opsets))


def quantized(kind: Any, zero: int) -> onnx.ModelProto:
    """A pair, as around a convolution."""
    given = ["scale", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *given], ["q"], name="node"),
        helper.make_node("DequantizeLinear", ["q", *given], ["y"], name="back"),
    ]
    ends = [helper.make_tensor_value_info(name, FLOAT, (1, 8, 8, 8)) for name in "xy"]
    arrays = (np.array(0.1, np.float32), np.array(zero, kind))
    weights = [numpy_helper.from_array(array, name) for array, name in zip(arrays, given, strict=True)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def dequantized(kind: Any) -> onnx.ModelProto:
    model = one_node("Identity")
    weights = [
        numpy_helper.from_array(np.zeros(8, kind), "w"),
        numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
    ]
    model.graph.initializer.extend(weights)
    model.graph.node.append(helper.make_node("DequantizeLinear", ["w", "scale"], ["dq"], name="bias"))
    return model


def newer_file(version: int) -> onnx.ModelProto:
    model = one_node("Relu")
    model.ir_version = version
    return model


CONV = (("w", np.zeros((8, 8, 3, 3), np.float32)),)
WIDE = (("w", np.zeros((8, 8, 33, 33), np.float32)),)
CASES = {
    "N2E-L101": ("trt@8.2", network(opset=17), network(opset=13), ""),
    "N2E-L102": ("ncnn", newer_file(14), newer_file(13), ""),
    "N2E-L103": ("trt@8.2", one_node("HardSwish", opset=13), one_node("HardSigmoid", opset=13), "node"),
    "N2E-L104": ("ort", one_node("QuickGelu", domain="com.microsoft"), one_node("Sigmoid"), "node"),
    "N2E-L105": ("trt@10", one_node("Gelu", opset=20), one_node("Relu", opset=20), "node"),
    "N2E-L106": ("ncnn", network(batch=None), network(), "images"),
    "N2E-L107": ("ncnn", network(batch=4), network(), "images"),
    "N2E-L108": ("trt@10", one_node("Relu", shape=(1, 8, "h", "w")), one_node("Relu", shape=("n", 8, 8, 8)), "x"),
    "N2E-L109": ("ncnn", one_node("Relu", type=TensorProto.FLOAT16), one_node("Relu"), "x"),
    "N2E-L110": ("ncnn", quantized(np.int8, 0), one_node("Relu"), "node"),
    "N2E-L111": ("trt@11", quantized(np.int8, 3), quantized(np.int8, 0), "node"),
    "N2E-L112": ("trt@8.5", dequantized(np.int32), dequantized(np.int8), "bias"),
    "N2E-L201": ("dla", one_node("HardSigmoid"), one_node("Sigmoid"), "node"),
    "N2E-L202": ("dla", network("attentivenas"), network(), ""),
    "N2E-L203": ("dla", one_node("Relu"), quantized(np.int8, 0), ""),
    "N2E-L204": (
        "dla",
        one_node("Conv", shape=(1, 8, 64, 64), weights=WIDE, kernel_shape=[33, 33]),
        one_node("Conv", weights=CONV, kernel_shape=[3, 3]),
        "node",
    ),
}


def rules(model: onnx.ModelProto, target: str) -> list[str]:
    return [finding.rule for finding in lint(model, load_target(target)).findings]


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_finds_what_breaks_it_and_nothing_else(rule):
    target, bad, good, node = CASES[rule]

    found = {finding.rule: finding for finding in reversed(lint(bad, load_target(target)).findings)}

    assert rule in found
    assert found[rule].node == node
    assert found[rule].message
    assert found[rule].fix
    assert rule not in rules(good, target)


def test_every_rule_has_a_case_and_an_id_with_a_meaning():
    assert {*CASES, "N2E-L301"} == RULE_IDS.keys()


@pytest.mark.parametrize("target", ["trt@8.5", "trt@10", "trt@11", "trt-rtx", "openvino", "ort", "ncnn", "tflite"])
@pytest.mark.parametrize("space", ["tiny", "attentivenas"])
def test_what_we_export_by_default_has_no_findings(space, target):
    assert rules(network(space), target) == []


def test_what_is_refused_is_not_doubted_too():
    assert rules(quantized(np.int8, 0), "ncnn") == ["N2E-L110"] * 2


def test_uint8_and_int32_are_what_onnx_runtime_quantizes_by_default():
    (found,) = lint(dequantized(np.int32), load_target("trt@11")).errors
    assert "int32 (a bias, as ONNX Runtime quantizes them by default)" in found.message
    found, _ = lint(quantized(np.uint8, 128), load_target("trt@8.5")).errors
    assert "uint8 is not accepted" in found.message
    assert rules(quantized(np.uint8, 128), "trt@11") == ["N2E-L111"] * 2
    assert rules(quantized(np.uint8, 128), "openvino") == []


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("trt@8.2.1", "trt@8.2"), ("trt@8.6", "trt@8.5"), ("trt@10.3", "trt@10"), ("trt@10.16", "trt@10.13"),
     ("trt@11.4.1", "trt@11"), ("trt@12", "trt@11")],
)  # fmt: skip
def test_every_version_of_tensorrt_has_an_entry(asked, nearest):
    assert load_target(asked).name == nearest


@pytest.mark.parametrize("name", ["trt@8.0", "trt@x", "tensorrt", "ncn"])
def test_targets_that_are_none_are_refused(name):
    with pytest.raises(UnknownNameError, match=f"unknown target '{name}'"):
        load_target(name)


@pytest.mark.parametrize("name", lint_target_names())
def test_every_entry_is_complete_and_says_where_it_is_from(name):
    target = load_target(name)

    assert target.title
    assert target.sources
    assert target.opset[0] <= 13 <= target.opset[1]
    assert not target.accepted & target.refused
    assert target.quantized in ("none", "int8", "symmetric", "any")
    assert {"Conv", "Gemm", "Add", "Mul", "Relu", "Sigmoid", "GlobalAveragePool"} <= target.accepted


def test_all_operators_of_the_file_are_of_onnx():
    known = {schema.name for schema in onnx.defs.get_all_schemas()}

    for name in lint_target_names():
        assert load_target(name).accepted | load_target(name).refused <= known, name


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        (quantized(np.uint8, 128), True),
        (quantized(np.uint8, 0), False),
        (quantized(np.int8, 3), True),
        (quantized(np.int8, 0), False),
        (dequantized(np.int32), True),
        (network(), False),
    ],
    ids=["uint8", "uint8 from 0", "zero point", "int8", "int32", "network"],
)
def test_tensorrts_real_parser_agrees_with_the_rules(model, refused, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="pip install 'nas2edge[trt-rtx]'")
    onnx.save(model, tmp_path / "model.onnx")

    reader, complaints = load_exporter("trt", {"builder": "rtx"}).ask(tmp_path / "model.onnx")

    assert reader.startswith("tensorrt_rtx ")
    assert bool(complaints) == refused == bool(lint(model, load_target("trt@11")).errors)


@pytest.mark.parametrize("target", ["openvino", "ort", "trt"])
def test_a_readers_complaint_is_a_finding_and_its_consent_settles_doubts(target, tmp_path):
    if target == "trt" and importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("pip install 'nas2edge[trt-rtx]'")
    onnx.save(one_node("Det", shape=(1, 1, 3, 3)), tmp_path / "bad.onnx")
    onnx.save(one_node("Erf"), tmp_path / "good.onnx")
    exporter = load_exporter(target)

    for name, refused in (("bad", target != "ort"), ("good", False)):
        reader, complaints = exporter.ask(tmp_path / f"{name}.onnx")
        report = lint(read_model(tmp_path / f"{name}.onnx"), load_target("ort"), reader=reader, complaints=complaints)
        assert [finding.rule for finding in report.findings if finding.rule != "N2E-L105"] == ["N2E-L301"] * refused
        assert refused or "N2E-L105" not in [finding.rule for finding in report.findings]


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["lint", *words])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_says_what_to_do_and_ends_with_2(tmp_path):
    onnx.save(network(opset=17), tmp_path / "model.onnx")

    code, out, _ = run(str(tmp_path / "model.onnx"), "--for", "trt@8.2", "--for", "ncnn")

    assert code == 2
    assert "error   N2E-L101  opset 17 is not read" in out
    assert "export with --opset 13" in out
    assert "ncnn: ncnn, by pnnx, as known on " in out


def test_nodes_with_one_complaint_are_named_together_and_strict_counts_warnings(tmp_path):
    onnx.save(network(), tmp_path / "model.onnx")

    code, out, _ = run(str(tmp_path), "--for", "dla")
    strict, _, _ = run(str(tmp_path), "--for", "dla", "--strict")

    assert "GlobalAveragePool does not run on the DLA" in out
    assert " more: " in out
    assert code == strict == 2 or (code, strict) == (0, 2)


def test_json_is_one_object_with_the_sources(tmp_path):
    onnx.save(network(batch=4), tmp_path / "model.onnx")

    code, out, err = run(str(tmp_path / "model.onnx"), "--for", "ncnn", "--json")

    report = json.loads(out)
    (target,) = report["targets"]
    assert code == 2
    assert (report["format"], report["version"], report["facts_of"]) == ("nas2edge.lint", 1, "2026-11-24")
    assert (target["errors"], target["findings"][0]["rule"]) == (1, "N2E-L107")
    assert target["sources"][0].startswith("single operators converted by pnnx")
    assert "batch size 4 is too large" in err


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [(None, InputError, "there is no file"), (b"hello", FormatError, "is no ONNX file, or is damaged")],
)
def test_files_that_are_none_are_refused(content, error, message, tmp_path):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(error, match=message):
        read_model(path)
    assert run(str(path), "--for", "ncnn")[0] == 2


@pytest.mark.parametrize(
    ("target", "model", "message"),
    [
        (
            "ncnn",
            quantized(np.int8, 0),
            r"N2E-L110 node: QuantizeLinear.*export in float32.*all 2: nas2edge lint --for ncnn",
        ),
        ("tflite", one_node("Cos"), "N2E-L103 node: Cos is not accepted"),
        ("trt", quantized(np.uint8, 128), r"N2E-L111 node: .*\(all 2: nas2edge lint --for trt-rtx\)"),
    ],
)
def test_targets_lint_before_they_build(target, model, message, tmp_path):
    needs = {"ncnn": ("pnnx", "ncnn"), "tflite": ("litert_torch",), "trt": ("tensorrt_rtx",)}[target]
    for package in needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(EngineNotBuiltError, match=message):
        load_exporter(target).build(tmp_path / "model.onnx", batch=(1, 1, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_the_facts_are_dated():
    assert 'date = "20' in Path(FILE).read_text()
