"""Simplification of an ONNX file by onnxsim, where it is installed; whoever calls this compares the outputs."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from dataclasses import dataclass

import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class Simplified:
    """What became of a graph.

    Args:
        model: The simplified model, or the one given if nothing changed.
        tried: Whether onnxsim ran to its end.
        note: What changed, or why nothing did.
    """

    model: onnx.ModelProto
    tried: bool
    note: str


def simplify(model: onnx.ModelProto) -> Simplified:
    """Simplifies a model. A missing or failing onnxsim is no error: the graph stays as emitted.

    Metadata that onnxsim adds is taken off again, so that the file does not depend on the tool's version.
    """
    stays = "the graph stays as emitted"
    if importlib.util.find_spec("onnxsim") is None:
        return Simplified(model=model, tried=False, note=f"onnxsim is not installed (extra: export); {stays}")
    try:
        import onnxsim

        version = onnxsim.__version__.removeprefix("v")
        # It prints progress of its own, which would spoil --json.
        with contextlib.redirect_stdout(io.StringIO()):
            simplified, ok = onnxsim.simplify(model)
    except (ImportError, RuntimeError, ValueError, onnx.checker.ValidationError) as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        return Simplified(model=model, tried=False, note=f"onnxsim failed ({reason}); {stays}")
    if not ok:
        return Simplified(model=model, tried=False, note=f"onnxsim {version} does not vouch for its result; {stays}")
    before, after = len(model.graph.node), len(simplified.graph.node)
    if after == before:
        return Simplified(model=model, tried=True, note=f"onnxsim {version}: already minimal, {before} nodes")
    del simplified.metadata_props[:]
    simplified.metadata_props.extend(model.metadata_props)
    simplified.producer_name, simplified.producer_version = model.producer_name, model.producer_version
    return Simplified(model=simplified, tried=True, note=f"onnxsim {version}: {before} nodes became {after}")
