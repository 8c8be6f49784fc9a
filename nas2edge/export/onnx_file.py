"""An ONNX file of a bundle, as ONNX Runtime computes it on this machine's CPU.

ONNX Runtime has no float16 kernels for x86: it puts casts around float32 ones and then removes those that meet, so
that nothing between two convolutions is rounded, nor can it overflow: its result is close to float32 where a device's
is infinite. `strict` puts an operator that it does run in float16, a reshape, between all others, so that every tensor
is rounded as on a device.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from nas2edge.export.exporter import Artefact, BatchRange
from nas2edge.export.registry import load_exporter

_CHUNK = 50

Array = npt.NDArray[np.float32]


@final
class OnnxFile:
    """A file that is written in one step and run as often as needed.

    Args:
        path: The file.
        batch: Batch sizes that it takes.
    """

    def __init__(self, path: Path, batch: BatchRange) -> None:
        self.path, self.batch = path, batch
        self._exporter = load_exporter("onnx")

    def write(self, model: onnx.ModelProto) -> None:
        """Writes a model that onnx's own checker accepts."""
        onnx.checker.check_model(model, full_check=True)
        self.path.write_bytes(model.SerializeToString(deterministic=True))

    def artefact(self) -> Artefact:
        """Returns the file as what the target "onnx" makes of it."""
        return self._exporter.build(self.path, batch=self.batch)

    def run(self, images: Array) -> Array:
        """Returns its logits (N, classes)."""
        return self._exporter.run(self.artefact(), images)


def run_model(model: onnx.ModelProto, images: Array) -> Array:
    """Returns a graph's first output for any number of images, every float16 tensor rounded to float16."""
    session = open_model(strict(open_batch(model)))
    (source, target) = session.get_inputs()[0].name, session.get_outputs()[0].name
    parts = [images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK)]
    return np.concatenate([session.run([target], {source: part})[0] for part in parts])


def open_model(model: onnx.ModelProto) -> ort.InferenceSession:
    """Loads a graph, for one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def open_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy that takes any batch size."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for end in (*copy.graph.input, *copy.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    return copy


def strict(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy in which every float16 tensor passes through a reshape that changes nothing but must be done."""
    known = onnx.shape_inference.infer_shapes(model)
    kinds = {value.name: value.type.tensor_type for value in known.graph.value_info}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    ranks = set()
    for node in model.graph.node:
        made = copy.graph.node.add()
        made.CopyFrom(node)
        name = node.output[0]
        if name in kinds and kinds[name].elem_type == TensorProto.FLOAT16:
            rank = len(kinds[name].shape.dim)
            ranks.add(rank)
            made.output[0] = f"{name}.raw"
            copy.graph.node.append(helper.make_node("Reshape", [f"{name}.raw", f"same.{rank}"], [name]))
    for rank in sorted(ranks):  # a 0 stands for the size that there is
        copy.graph.initializer.append(numpy_helper.from_array(np.zeros(rank, dtype=np.int64), f"same.{rank}"))
    return copy
