"""What several targets share: asking for their converter, and running what they made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from nas2edge.errors import EngineNotBuiltError, MissingDependencyError
from nas2edge.export.exporter import Artefact, BatchRange
from nas2edge.optional import require
from nas2edge.runtimes import open_session, run_all

_ONNX_IS_COMPLETE = "The ONNX file is complete"


def need(*modules: str, extra: str, target: str) -> None:
    """Checks that a target's packages can be found, without importing them.

    Raises:
        EngineNotBuiltError: Names the first that is missing and the command that installs it.
    """
    try:
        require(*modules, extra=extra, purpose=f"the target {target}")
    except MissingDependencyError as err:
        raise EngineNotBuiltError(f"{err}. {_ONNX_IS_COMPLETE}") from err


def refused(target: str, reason: str) -> EngineNotBuiltError:
    """Returns the error of a target that cannot be made; `reason` says why, and what to do."""
    return EngineNotBuiltError(f"no {target} artefact was made: {reason}. {_ONNX_IS_COMPLETE}")


def check_fixed(batch: BatchRange, *, target: str, only_one: bool = False) -> None:
    """Checks that the batch is fixed, and one if the target knows nothing else.

    Raises:
        EngineNotBuiltError: It is not.
    """
    low, _, high = batch
    if low != high:
        raise refused(
            target, f"it takes no range of batch sizes, and {':'.join(map(str, batch))} is one; give one size"
        )
    if only_one and low != 1:
        raise refused(target, f"it takes images one by one, and the batch size is {low}; give --batch 1")


def check_float32(model: onnx.ModelProto, *, target: str) -> None:
    """Checks that a graph computes in float32 throughout.

    Raises:
        EngineNotBuiltError: It holds quantized or half-precision tensors.
    """
    quantized = sorted({node.op_type for node in model.graph.node if node.op_type.endswith("uantizeLinear")})
    if quantized:
        raise refused(target, f"it is made from float32, and the graph has {' and '.join(quantized)}; export fp32")
    half = [weight.name for weight in model.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT16]
    if half:
        raise refused(target, f"it is made from float32, and {half[0]} is float16; export fp32")


def run_artefact(artefact: Artefact, images: npt.NDArray[np.float32], *, runtime: str) -> npt.NDArray[np.float32]:
    """Loads an artefact's first file on one thread and runs it on images (N, 3, R, R); returns logits (N, classes).

    Raises:
        RuntimeFailedError: The runtime refuses the file, or fails.
    """
    with open_session(artefact.files[0], runtime=runtime) as session:
        return run_all(session, images)
