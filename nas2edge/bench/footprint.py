"""What a network costs that needs no clock: multiply-accumulates, parameters, size, operators, memory for activations.

These figures are the same on every machine and every time, so a gate on them never flakes. They are counted in the file
itself, whoever made it: fully for ONNX; of other formats, what can be read without their runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from nas2edge.bench.artefact import Artefact
from nas2edge.errors import FormatError
from nas2edge.units import format_bytes, format_count

if TYPE_CHECKING:
    import onnx

UNITS = {"macs": "MACs", "params": "parameters", "size_bytes": "size", "nodes": "operators",
         "peak_activation_bytes": "activation memory"}  # fmt: skip
"""What each figure is called."""

_MAC_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "ConvInteger", "MatMulInteger", "QLinearMatMul")
_WEIGHT_INPUT = {"QLinearConv": 3, "QLinearMatMul": 3}
_INPLACE = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Costs of one network at the batch size that it is timed with; None for what cannot be read from its file.

    Args:
        macs: Multiply-accumulates of convolutions and matrix products.
        params: Values of all weights.
        size_bytes: Of the file, and of its weights where they lie in another.
        nodes: Operators, constants aside.
        peak_activation_bytes: Greatest memory of intermediate results, input and output included, if operators run in
            the file's order, none is fused, and each result is freed after its last use.
    """

    macs: int | None = None
    params: int | None = None
    size_bytes: int | None = None
    nodes: int | None = None
    peak_activation_bytes: int | None = None

    def to_dict(self) -> dict[str, int | None]:
        """Returns the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Any) -> Footprint:
        """Reads the JSON form.

        Raises:
            FormatError: It is no object of numbers with these names.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(raw, Mapping) or not set(raw) <= names:
            raise FormatError(f"a footprint is an object with {', '.join(sorted(names))}; got {raw!r}")
        for name, value in raw.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise FormatError(f"footprint.{name} is {value!r}; expected a whole number")
        return cls(**raw)


def format_figure(name: str, value: float) -> str:
    """Writes a figure with its unit: format_figure("size_bytes", 2097152) is "2.097 MB"."""
    if name.endswith("_bytes"):
        return format_bytes(value)
    return f"{value:g}" if name == "nodes" else format_count(value)


def read_footprint(artefact: Artefact) -> Footprint:
    """Counts what a network's file says of its costs.

    Raises:
        FormatError: The file is damaged.
    """
    suffix = artefact.path.suffix
    if suffix == ".onnx":
        return _of_onnx(artefact.path, artefact.shape)
    if suffix == ".xml":
        return _of_openvino(artefact.path)
    if suffix == ".param":
        return _of_ncnn(artefact.path)
    return Footprint(size_bytes=artefact.path.stat().st_size)


def read_input(artefact: Artefact) -> tuple[tuple[int, ...], str] | None:
    """Returns shape and type of the input that a network is timed with, None where its file does not say it.

    Raises:
        FormatError: The file is damaged.
    """
    if artefact.path.suffix != ".onnx":
        return None
    import onnx

    model = _load(artefact.path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type not in _elements():
        return None
    dims = [dim.dim_value or 1 for dim in inputs[0].type.tensor_type.shape.dim]
    kind = onnx.helper.tensor_dtype_to_np_dtype(inputs[0].type.tensor_type.elem_type)
    return artefact.shape or tuple(dims), str(kind)


def _load(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.load(str(path), load_external_data=False)
    except DecodeError as err:
        raise FormatError(f"{path} is no ONNX file that reads: {str(err).splitlines()[0]}") from err


def _of_onnx(path: Path, shape: tuple[int, ...] | None) -> Footprint:
    import onnx

    model = _load(path)
    try:
        sizes = _value_sizes(model, shape)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as err:
        raise FormatError(f"{path} is no ONNX file that reads: {str(err).splitlines()[0]}") from err
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    external = {
        path.parent / entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [path, *(file for file in external if file.is_file())]
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    macs = [_macs(node, sizes, weights) for node in nodes if node.op_type in _MAC_OPS]
    return Footprint(
        macs=None if None in macs else sum(filter(None, macs)),
        params=sum(prod(dims) for dims in weights.values()),
        size_bytes=sum(file.stat().st_size for file in files),
        nodes=len(nodes),
        peak_activation_bytes=_peak(model, nodes, sizes),
    )


_Sizes = dict[str, tuple[tuple[int, ...], int]]
"""By name of a value: its shape, and the bytes of one element."""


def _value_sizes(model: onnx.ModelProto, shape: tuple[int, ...] | None) -> _Sizes:
    """Sizes of all values whose shape is known, for the input's shape, with 1 for axes of any size."""
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in weights:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if not dim.dim_value:
                    dim.dim_value = shape[axis] if shape and axis < len(shape) else 1
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    model.graph.ClearField("value_info")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    sizes: _Sizes = {}
    for value in [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]:
        tensor = value.type.tensor_type
        dims = tuple(dim.dim_value for dim in tensor.shape.dim)
        if tensor.HasField("shape") and all(dims) and tensor.elem_type in _elements():
            sizes[value.name] = (dims, _elements()[tensor.elem_type])
    return sizes


def _elements() -> dict[int, int]:
    """Bytes of an element by ONNX type."""
    from onnx import TensorProto

    names = {
        1: "UINT8 INT8 BOOL",
        2: "FLOAT16 BFLOAT16 INT16 UINT16",
        4: "FLOAT INT32 UINT32",
        8: "DOUBLE INT64 UINT64",
    }
    return {getattr(TensorProto, name): size for size, group in names.items() for name in group.split()}


def _macs(node: onnx.NodeProto, sizes: _Sizes, weights: Mapping[str, tuple[int, ...]]) -> int | None:
    """Each output value of a convolution is one sum over its weights' input channels and kernel; None if not known."""
    name = node.input[_WEIGHT_INPUT.get(node.op_type, 1)]
    dims = weights.get(name) or sizes.get(name, ((), 0))[0]
    output, source = sizes.get(node.output[0]), sizes.get(node.input[0])
    if not dims or output is None or source is None:
        return None
    if node.op_type == "ConvTranspose":
        return prod(source[0]) * prod(dims[1:])
    if "Conv" in node.op_type:
        return prod(output[0]) * prod(dims[1:])
    inner = dims[-2] if len(dims) > 1 else dims[0]
    if node.op_type == "Gemm" and any(entry.name == "transB" and entry.i for entry in node.attribute):
        inner = dims[-1]
    return prod(output[0]) * inner


def _peak(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], sizes: _Sizes) -> int | None:
    weights = {tensor.name for tensor in model.graph.initializer}
    last_use = {name: i for i, node in enumerate(nodes) for name in node.input}
    last_use |= {value.name: len(nodes) for value in model.graph.output}
    bytes_of = {name: prod(dims) * element for name, (dims, element) in sizes.items()}
    held = {value.name: bytes_of.get(value.name, 0) for value in model.graph.input if value.name not in weights}
    peak = sum(held.values())
    for i, node in enumerate(nodes):
        for name in node.output:
            if name and name not in bytes_of:
                return None
            # A view of its input takes no memory; the input is then kept as long as the view is.
            held[name] = 0 if node.op_type in _INPLACE else bytes_of.get(name, 0)
            if node.op_type in _INPLACE and node.input[0] in held:
                last_use[node.input[0]] = max(last_use[node.input[0]], last_use.get(name, i))
        peak = max(peak, sum(held.values()))
        held = {name: size for name, size in held.items() if last_use.get(name, i) > i}
    return peak


def _of_openvino(path: Path) -> Footprint:
    try:
        layers = ElementTree.parse(path).getroot().findall("./layers/layer")
    except ElementTree.ParseError as err:
        raise FormatError(f"{path} is no OpenVINO model that reads: {err}") from err
    kinds = [layer.get("type", "") for layer in layers]
    weights = path.with_suffix(".bin")
    size = path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)
    return Footprint(size_bytes=size, nodes=sum(kind not in ("Const", "Parameter", "Result") for kind in kinds))


def _of_ncnn(path: Path) -> Footprint:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "7767517":
        raise FormatError(f"{path} is no ncnn model that reads: it does not begin with ncnn's number 7767517")
    kinds = [line.split()[0] for line in lines[2:] if line.strip()]
    weights = path.with_suffix(".bin")
    size = path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)
    return Footprint(size_bytes=size, nodes=sum(kind not in ("Input", "Split") for kind in kinds))
