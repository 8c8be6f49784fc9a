"""Simplification of an ONNX file by onnxsim, where it is installed; whoever calls this compares the outputs."""

from __future__ import annotations

import contextlib
import importlib.util
import io

import onnx


def simplify(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Returns the simplified model and a note of what changed; the model itself if onnxsim is missing or gives up.

    Metadata that onnxsim adds is taken off again, so that the file does not depend on the tool's version.
    """
    before = len(model.graph.node)
    if importlib.util.find_spec("onnxsim") is None:
        return model, "onnxsim is not installed (pip install 'nas2edge[export]'); the graph stays as emitted"
    import onnxsim

    # It prints progress of its own, which would spoil --json.
    with contextlib.redirect_stdout(io.StringIO()):
        simplified, ok = onnxsim.simplify(model)
    version = onnxsim.__version__.removeprefix("v")
    if not ok:
        return model, f"onnxsim {version} does not vouch for its result; the graph stays as emitted"
    after = len(simplified.graph.node)
    if after == before:
        return model, f"onnxsim {version}: already minimal, {before} nodes"
    del simplified.metadata_props[:]
    simplified.metadata_props.extend(model.metadata_props)
    simplified.producer_name, simplified.producer_version = model.producer_name, model.producer_version
    return simplified, f"onnxsim {version}: {before} nodes became {after}"
