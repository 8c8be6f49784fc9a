"""The graph as `torch.onnx.export` writes it, for whoever trusts that more than our own emitter; both must agree.

What is exported is the network with folded weights, so that neither exporter folds anything by itself. From opset 18
on, and where onnxscript is installed, it is torch's exporter on `torch.export`; below, the one on TorchScript, which
torch has deprecated but which alone writes older opsets. Nodes and tensors get the names that our emitter gives them,
if the two graphs have the same operators in the same order, so that every later stage can name blocks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper
from torch import nn

from nas2edge.errors import InputError
from nas2edge.graph import INPUT_NAME, OUTPUT_NAME, network_model
from nas2edge.supernet.static import StaticNet, StaticOp

FIRST_DYNAMO_OPSET = 18
_SAME = {"ReduceMean": "GlobalAveragePool", "Reshape": "Flatten"}

Array = npt.NDArray[np.float32]


def torch_model(
    net: StaticNet, folded: Mapping[str, Array], *, opset: int, batch: int | None, metadata: Mapping[str, str]
) -> tuple[onnx.ModelProto, str]:
    """Exports a network by torch.

    Args:
        net: The network.
        folded: Its weights with batch normalisation folded in.
        opset: Of the ONNX file.
        batch: Batch size, or None to leave it open.
        metadata: Written to the model's metadata_props, sorted by name.

    Returns:
        The graph, and which of torch's exporters wrote it.

    Raises:
        InputError: torch does not write this opset.
    """
    plain = folded_net(net, folded)
    dynamo = opset >= FIRST_DYNAMO_OPSET and importlib.util.find_spec("onnxscript") is not None
    example = torch.zeros((2 if dynamo else batch or 2, net.layers[0].in_chs, net.resolution, net.resolution))
    by = "torch.export" if dynamo else "TorchScript"
    try:
        with _quiet():
            model = (
                _by_dynamo(plain, example, opset) if dynamo else _by_torchscript(plain, example, opset, batch is None)
            )
    except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as err:
        said = (str(err).splitlines() or [type(err).__name__])[0]
        raise InputError(
            f"torch {torch.__version__} ({by}) does not export opset {opset}: {said}; use --exporter own"
        ) from err
    written = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise InputError(f"torch wrote opset {written}, asked for was {opset}; use --exporter own, which writes any")
    for end in (*model.graph.input, *model.graph.output):
        dim = end.type.tensor_type.shape.dim[0]
        if batch is None:
            dim.dim_param = "batch"
        else:
            dim.dim_value = batch
    own = network_model(net.layers, folded, opset=opset, batch=batch)
    _rename(model, own)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:], model.metadata_props[:], model.graph.metadata_props[:]
    helper.set_model_props(model, {name: metadata[name] for name in sorted(metadata)})
    return model, by


def folded_net(net: StaticNet, folded: Mapping[str, Array]) -> StaticNet:
    """Returns a copy that has convolutions with biases, and no batch normalisation."""
    copy = StaticNet(net.layers).eval()
    for name, module in copy.named_modules():
        if isinstance(module, StaticOp):
            module.bn = None
            module.weight = nn.Parameter(torch.from_numpy(folded[f"{name}.weight"].copy()))
            if f"{name}.bias" in folded:
                module.bias = nn.Parameter(torch.from_numpy(folded[f"{name}.bias"].copy()))
    return copy


def _by_dynamo(net: nn.Module, example: torch.Tensor, opset: int) -> onnx.ModelProto:
    """The batch is left open, or the number would be written into the graph's shapes, and fixed by the caller."""
    program: Any = torch.onnx.export(
        net,
        (example,),
        dynamo=True,
        opset_version=opset,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )
    model: onnx.ModelProto = program.model_proto
    return model


def _by_torchscript(net: nn.Module, example: torch.Tensor, opset: int, open_batch: bool) -> onnx.ModelProto:
    written: Any = io.BytesIO()
    torch.onnx.export(
        net,
        (example,),
        written,
        dynamo=False,
        opset_version=opset,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}} if open_batch else None,
    )
    model: onnx.ModelProto = onnx.load_from_string(written.getvalue())
    return model


@contextlib.contextmanager
def _quiet() -> Any:
    """Both exporters print, warn and log."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _rename(model: onnx.ModelProto, own: onnx.ModelProto) -> None:
    """Gives nodes and what they make our names, if operators and order are the same."""
    theirs = [_SAME.get(node.op_type, node.op_type) for node in model.graph.node]
    if theirs != [node.op_type for node in own.graph.node]:
        return
    names: dict[str, str] = {}
    for node, named in zip(model.graph.node, own.graph.node, strict=True):
        node.name = named.name
        names[node.output[0]] = named.output[0]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
