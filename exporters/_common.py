"""What several targets share: asking for their converter, and running what they made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from nas2edge.errors import EngineNotBuiltError, MissingDependencyError
from nas2edge.export.exporter import Artefact, BatchRange
from nas2edge.export.lint import lint, read_model
from nas2edge.export.lint_targets import load_target
from nas2edge.optional import require
from nas2edge.runtimes import open_session, run_all

_SHOWN = 3
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


def precision_of(model: onnx.ModelProto) -> str:
    """Returns "int8", "float16" or "float32": the narrowest precision that a graph computes in."""
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    half = any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in model.graph.initializer)
    return "float16" if half else "float32"


def run_artefact(artefact: Artefact, images: npt.NDArray[np.float32], *, runtime: str) -> npt.NDArray[np.float32]:
    """Loads an artefact's first file on one thread and runs it on images (N, 3, R, R); returns logits (N, classes).

    Raises:
        RuntimeFailedError: The runtime refuses the file, or fails.
    """
    with open_session(artefact.files[0], runtime=runtime) as session:
        return run_all(session, images)


def lint_first(model: Path, target: str, *, name: str) -> list[str]:
    """Lints a model before anything is built from it; returns the warnings.

    Args:
        model: The ONNX file.
        target: What to lint for, such as "trt@8.5".
        name: The target's name in messages.

    Raises:
        EngineNotBuiltError: There are errors; has the first of them, with their ids and what to do.
    """
    report = lint(read_model(model), load_target(target))
    if report.errors:
        kinds = {(finding.rule, finding.fix): finding for finding in reversed(report.errors)}
        said = "; ".join(
            f"{finding.rule} {finding.node + ': ' if finding.node else ''}{finding.message}: {finding.fix}"
            for finding in [*kinds.values()][::-1][:_SHOWN]
        )
        raise refused(name, f"{said} (all {len(report.errors)}: nas2edge lint --for {target})")
    return [f"{finding.rule} {finding.node}: {finding.message}" for finding in report.warnings[:_SHOWN]]
