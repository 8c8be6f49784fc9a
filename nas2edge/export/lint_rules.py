"""The rules of the linter, each with an id that does not change: what a target would stumble over in an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas2edge.export.lint_targets import DlaLimits, LintTarget

ERROR, WARNING = "error", "warning"
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_SYMMETRIC = {"int8": (TensorProto.INT8,), "symmetric": (TensorProto.INT8, TensorProto.UINT8)}
_INSTEAD = {
    "HardSwish": "write it as HardSigmoid (alpha 1/6, beta 0.5) and Mul",
    "Swish": "write it as Sigmoid and Mul",
    "Gelu": "write it by Erf",
    "Reciprocal": "write it as Div",
    "Mish": "write it by Softplus, Tanh and Mul",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a target would stumble over.

    Args:
        rule: Id of the rule, such as "N2E-L101".
        severity: "error": it will not build, or not run as asked. "warning": it may not, or not as fast.
        node: Name of the node or tensor; empty for the whole file.
        message: What is wrong.
        fix: What to do.
    """

    rule: str
    severity: str
    node: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A model with what the rules look at.

    Args:
        model: The model, with its shapes inferred.
        opset: Of the ONNX operators.
        shapes: Of tensors by name, where they are known; None for an open axis.
        types: Of tensors by name, where they are known.
        constants: Initializers by name.
    """

    model: onnx.ModelProto
    opset: int
    shapes: dict[str, tuple[int | None, ...]]
    types: dict[str, int]
    constants: dict[str, onnx.TensorProto]


Rule = Callable[[Facts, LintTarget], Iterator[Finding]]


def facts_of(model: onnx.ModelProto) -> Facts:
    """Returns what the rules look at; shapes that cannot be inferred are left out."""
    with suppress(onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    constants = {weight.name: weight for weight in graph.initializer}
    values = [*graph.input, *graph.value_info, *graph.output]
    return Facts(
        model=model,
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        shapes={value.name: _shape(value) for value in values if value.type.tensor_type.HasField("shape")},
        types={value.name: value.type.tensor_type.elem_type for value in values}
        | {name: weight.data_type for name, weight in constants.items()},
        constants=constants,
    )


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim)


def file_versions(facts: Facts, target: LintTarget) -> Iterator[Finding]:
    """N2E-L101: the operator set, N2E-L102: the file format."""
    low, high = target.opset
    if not low <= facts.opset <= high:
        message = f"opset {facts.opset} is not read; {target.title} reads {low} to {high}"
        yield _error("N2E-L101", "", message, f"export with --opset {min(max(facts.opset, low), high)}")
    if target.max_ir and facts.model.ir_version > target.max_ir:
        message = f"file format {facts.model.ir_version} is not read, {target.max_ir} at most is"
        yield _error("N2E-L102", "", message, "export with a lower --opset, or save with an older onnx package")


def operators(facts: Facts, target: LintTarget) -> Iterator[Finding]:
    """N2E-L103: an operator is refused, N2E-L104: of a foreign domain, N2E-L105: it is not known whether it is."""
    for node in facts.model.graph.node:
        kind, name = node.op_type, _name(node)
        if node.domain not in ("", "ai.onnx"):
            fix = "export anew: such nodes come from a file that a runtime has optimised for itself"
            yield _error("N2E-L104", name, f"{node.domain}:{kind} is no ONNX operator", fix)
        elif kind in target.refused or (target.only and kind not in target.accepted):
            yield _error("N2E-L103", name, f"{kind} is not accepted", _INSTEAD.get(kind, "use other operators"))
        elif kind not in target.accepted and not (kind in _QUANTIZERS and target.quantized == "none"):
            yield _warning("N2E-L105", name, f"it is not known here whether {kind} is accepted", "try it")


def batch_size(facts: Facts, target: LintTarget) -> Iterator[Finding]:
    """N2E-L106: the batch size is open, N2E-L107: it is too large, N2E-L108: another axis of the input is open."""
    for value in facts.model.graph.input:
        name, shape = value.name, facts.shapes.get(value.name)
        if name in facts.constants or not shape:
            continue
        size, *rest = shape
        if size is None and not target.dynamic_batch:
            yield _error("N2E-L106", name, "the batch size is left open", "export with one size, such as --batch 1")
        if size is not None and target.max_batch and size > target.max_batch:
            message = f"batch size {size} is too large, {target.max_batch} is the greatest"
            yield _error("N2E-L107", name, message, f"export with --batch {target.max_batch}")
        if None in rest:
            message = f"an axis other than the batch is left open: {_dims(shape)}"
            yield _warning("N2E-L108", name, message, "give the image's size; engines for open sizes are slower")


def types(facts: Facts, target: LintTarget) -> Iterator[Finding]:
    """N2E-L109: a float type that is not computed."""
    for kind, accepted in ((TensorProto.FLOAT16, target.float16), (TensorProto.DOUBLE, target.float64)):
        found = [name for name, held in facts.types.items() if held == kind]
        if found and not accepted:
            name = "float16" if kind == TensorProto.FLOAT16 else "float64"
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield _error("N2E-L109", found[0], f"{name} is not accepted: {found[0]}{more}", "export in float32")


def quantization(facts: Facts, target: LintTarget) -> Iterator[Finding]:
    """N2E-L110: none accepted, N2E-L111: a zero point, N2E-L112: a type that is not accepted, such as int32 biases."""
    quantizers = [node for node in facts.model.graph.node if node.op_type in _QUANTIZERS]
    for node in quantizers if target.quantized != "any" else []:
        op, name = node.op_type, _name(node)
        if target.quantized == "none":
            yield _error("N2E-L110", name, f"{op}: quantized networks are not accepted", "export in float32")
            continue
        zero = facts.constants.get(node.input[2]) if len(node.input) > 2 else None
        held = facts.types.get(node.input[0]) if op == "DequantizeLinear" else None
        kind = held or (zero.data_type if zero is not None else TensorProto.UINT8)
        if kind not in _SYMMETRIC[target.quantized]:
            bias = " (a bias, as ONNX Runtime quantizes them by default)" if kind == TensorProto.INT32 else ""
            message = f"{op} of {TensorProto.DataType.Name(kind).lower()}{bias} is not accepted"
            fix = "quantize to int8, symmetric, with biases in float (QuantizeBias=False)"
            yield _error("N2E-L112", name, message, fix)
        elif zero is not None and np.any(numpy_helper.to_array(zero)):
            fix = "quantize symmetrically (ActivationSymmetric=True)"
            yield _error("N2E-L111", name, f"{op} has a zero point that is not 0", fix)


def dla(facts: Facts, target: LintTarget) -> Iterator[Finding]:
    """N2E-L201: a node leaves the DLA, N2E-L202: too many pieces, N2E-L203: precision, N2E-L204: limits."""
    limits = target.dla
    if limits is None:
        return
    nodes = facts.model.graph.node
    half = any(weight.data_type == TensorProto.FLOAT16 for weight in facts.constants.values())
    if not half and not any(node.op_type == "QuantizeLinear" for node in nodes):
        fix = "export in fp16, or build with --fp16 (TensorRT before 11)"
        yield _warning("N2E-L203", "", "the DLA computes in float16 and int8 only", fix)
    off = [_off_dla(node, facts, limits) for node in nodes]
    for node, why in zip(nodes, off, strict=True):
        if why:
            rule = "N2E-L204" if node.op_type in limits.accepted else "N2E-L201"
            yield _warning(rule, _name(node), f"{why}; it falls back to the GPU", _dla_fix(node))
    # Nodes that cost nothing belong to either side; a piece is a run of nodes on the DLA, in the order of the graph.
    sides = [not why for node, why in zip(nodes, off, strict=True) if node.op_type not in limits.free]
    pieces = sum(on_dla for on_dla, _ in groupby(sides))
    if pieces > limits.max_loadables:
        message = f"nodes off the DLA cut the network into {pieces} pieces; one core holds {limits.max_loadables}"
        fix = "search without squeeze-and-excitation, and with swish or ReLU rather than hard-swish"
        yield _error("N2E-L202", "", message, fix)


def _off_dla(node: onnx.NodeProto, facts: Facts, limits: DlaLimits) -> str:
    if node.op_type not in limits.accepted | limits.free:
        return f"{node.op_type} does not run on the DLA"
    for name in (*node.input, *node.output):
        shape = facts.shapes.get(name, ())
        if any(size is not None and size > limits.max_dim for size in shape[1:]):
            return f"an axis of {name} ({_dims(shape)}) is larger than {limits.max_dim}"
    attributes = {found.name: helper.get_attribute_value(found) for found in node.attribute}
    allowed = {"Conv": limits.conv, "ConvTranspose": limits.conv, "AveragePool": limits.pool, "MaxPool": limits.pool}
    names = {"kernel": "kernel_shape", "stride": "strides", "pad": "pads"}
    for what, (low, high) in allowed.get(node.op_type, {}).items():
        values = attributes.get(names[what], [low])
        if not all(low <= value <= high for value in values):
            return f"{node.op_type} has {names[what]} {list(values)}, beyond {low} to {high}"
    return ""


def _dla_fix(node: onnx.NodeProto) -> str:
    if node.op_type in ("GlobalAveragePool", "ReduceMean", "HardSigmoid"):
        return "search without squeeze-and-excitation; a last pooling on the GPU costs little"
    return _INSTEAD.get(node.op_type, "use an operator that the DLA has")


def _error(rule: str, node: str, message: str, fix: str) -> Finding:
    return Finding(rule=rule, severity=ERROR, node=node, message=message, fix=fix)


def _warning(rule: str, node: str, message: str, fix: str) -> Finding:
    return Finding(rule=rule, severity=WARNING, node=node, message=message, fix=fix)


def _name(node: onnx.NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)


def _dims(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


RULES: tuple[Rule, ...] = (file_versions, operators, batch_size, types, quantization, dla)
"""All rules, in the order of their ids."""

RULE_IDS = {
    "N2E-L101": "the operator set is not read",
    "N2E-L102": "the version of the file format is not read",
    "N2E-L103": "an operator is not accepted",
    "N2E-L104": "an operator of a foreign domain",
    "N2E-L105": "it is not known whether an operator is accepted",
    "N2E-L106": "the batch size is left open",
    "N2E-L107": "the batch size is too large",
    "N2E-L108": "another axis of the input is left open",
    "N2E-L109": "a floating-point type is not computed",
    "N2E-L110": "quantized networks are not accepted",
    "N2E-L111": "a zero point that is not 0",
    "N2E-L112": "a quantized type that is not accepted",
    "N2E-L201": "a node does not run on the DLA",
    "N2E-L202": "too many pieces for a DLA core",
    "N2E-L203": "the DLA does not compute in float32",
    "N2E-L204": "a node is beyond the DLA's limits",
    "N2E-L301": "the target's own reader refuses the file",
}
"""What each id stands for; an id never changes its meaning."""
