"""ncnn, for phones and single-board computers: converted by pnnx, ncnn's own converter.

pnnx halves the weights' precision unless told not to. Here they stay float32, so that what is compared is the network;
ncnn still computes in half precision on an Arm CPU that has it, unless the application turns that off. Of a float16
model pnnx reads nothing, so it is given the same values as float32, and told to store them as halves.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from nas2edge.export.exporter import Artefact, BatchRange, Exporter

from ._common import check_fixed, lint_first, need, precision_of, refused, run_artefact

_TIMEOUT_S = 600.0


@final
class NcnnExporter(Exporter):
    """Writes `model.ncnn.param` and `model.ncnn.bin`: the same bytes each time, for the same version of pnnx.

    A float16 model's weights are stored as halves; which layers were kept in float32 is lost, since ncnn decides that.
    """

    name = "ncnn"

    def build(self, model: Path, *, batch: BatchRange) -> Artefact:
        """Converts the model.

        Raises:
            EngineNotBuiltError: pnnx or ncnn is missing, pnnx fails, or the model has a batch size other than 1 or is
                quantized.
        """
        need("pnnx", "ncnn", extra="ncnn", target=self.name)
        check_fixed(batch, target=self.name, only_one=True)
        files = tuple(model.with_suffix(suffix) for suffix in (".ncnn.param", ".ncnn.bin"))
        with tempfile.TemporaryDirectory() as folder:
            graph = onnx.load(model)
            half = precision_of(graph) == "float16"
            onnx.save(widened(graph) if half else graph, Path(folder, "model.onnx"))
            warnings = lint_first(Path(folder, "model.onnx"), self.name, name=self.name)
            _run_pnnx(Path(folder), half=half)
            for file in files:
                shutil.copyfile(Path(folder, f"model.ncnn{file.suffix}"), file)
        return Artefact(
            target=self.name,
            files=files,
            runtime=f"ncnn {version('ncnn')}",
            notes={
                "converter": f"pnnx {_pnnx_version()}",
                "layers": _layers(files[0]),
                "lint": warnings,
                **_ends(files[0]),
            },  # fmt: skip
        )

    def run(self, artefact: Artefact, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs image by image on one thread, in float32."""
        return run_artefact(artefact, images, runtime="ncnn")


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model with the same weights as float32, and without the casts that then do nothing."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    nodes = [node for node in graph.node if node.op_type != "Cast"]
    for value in graph.output:  # the name of an output stays, whatever it was cast from
        source = value.name
        while source in casts:
            source = casts[source]
        if source != value.name:
            del casts[value.name]
            casts[source] = value.name
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = _uncast(name, casts)
        for i, name in enumerate(node.output):
            node.output[i] = casts.get(name, name)
    weights = [numpy_helper.to_array(weight) for weight in graph.initializer]
    named = zip(graph.initializer, weights, strict=True)
    kept = [numpy_helper.from_array(_wide(array), weight.name) for weight, array in named]
    for values in (graph.node, graph.initializer, graph.value_info):
        del values[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return wide


def _uncast(name: str, casts: Mapping[str, str]) -> str:
    while name in casts:
        name = casts[name]
    return name


def _wide(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _run_pnnx(folder: Path, *, half: bool) -> None:
    """Runs pnnx on model.onnx; it writes model.ncnn.param, model.ncnn.bin and much else into the folder."""
    import pnnx

    try:
        done = subprocess.run(
            [pnnx.EXEC_PATH, "model.onnx", f"fp16={int(half)}"],
            cwd=folder, capture_output=True, text=True, errors="replace", check=False, timeout=_TIMEOUT_S,
        )  # fmt: skip
    except OSError as err:
        raise refused("ncnn", f"pnnx does not start ({err.strerror}); install it again: pip install pnnx") from err
    except subprocess.TimeoutExpired as err:
        raise refused("ncnn", f"pnnx did not end within {_TIMEOUT_S:.0f} s") from err
    missing = [name for name in ("model.ncnn.param", "model.ncnn.bin") if not (folder / name).is_file()]
    if done.returncode or missing:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise refused("ncnn", f"pnnx ended with code {done.returncode}: {said[-1] if said else 'it gave no reason'}")
    _check_known(folder / "model.ncnn.param")


def _check_known(param: Path) -> None:
    """What pnnx cannot express in ncnn it leaves in the file, under the name that ONNX has for it, and says nothing."""
    import ncnn

    kinds = {line.split()[0] for line in param.read_text().splitlines()[2:] if line.strip()}
    strange = sorted(kind for kind in kinds if ncnn.layer_to_index(kind) < 0)
    if strange:
        raise refused("ncnn", f"ncnn {ncnn.__version__} has no layer for {', '.join(strange)}")


def _pnnx_version() -> str:
    try:
        return version("pnnx")
    except PackageNotFoundError:
        return "of unknown version"


def _layers(param: Path) -> int:
    return int(param.read_text().splitlines()[1].split()[0])


def _ends(param: Path) -> dict[str, str]:
    """Returns the names of the input and output blobs, which an application asks ncnn for: pnnx names them anew."""
    lines = [line.split() for line in param.read_text().splitlines()[2:] if line.strip()]
    consumed = {name for line in lines for name in line[4 : 4 + int(line[2])]}
    produced = [name for line in lines for name in line[4 + int(line[2]) : 4 + int(line[2]) + int(line[3])]]
    (source,) = (line[4] for line in lines if line[0] == "Input")
    (target,) = (name for name in produced if name not in consumed)
    return {"input": source, "output": target}
