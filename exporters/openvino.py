"""OpenVINO's intermediate representation (IR), for Intel CPUs and GPUs and for Arm CPUs.

The model is read by OpenVINO's own ONNX reader and folded, rather than by `openvino.convert_model`, which reports each
use to its maker over the network unless told not to; the compiled network is the same. Importing OpenVINO would report
itself too, which `nas2edge.runtimes` prevents.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any, final

import numpy as np
import numpy.typing as npt

from nas2edge.export.exporter import Artefact, BatchRange, Exporter

from ._common import need, refused, run_artefact

_COUNTED = re.compile(r"[A-Za-z]+_\d+")


@final
class OpenVinoExporter(Exporter):
    """Writes `model.xml` and `model.bin`; weights keep the precision of the ONNX file."""

    name = "openvino"

    def build(self, model: Path, *, batch: BatchRange) -> Artefact:
        """Converts the model; every batch size that the ONNX file takes, the IR takes too."""
        need("openvino", extra="openvino", target=self.name)
        import openvino as ov
        from openvino.passes import ConstantFolding, Manager

        target = model.with_suffix(".xml")
        passes = Manager()
        passes.register_pass(ConstantFolding())
        try:
            network = ov.Core().read_model(str(model))
            # Folded, int8 weights would become floats, and the convolutions with them.
            if not any(op.get_type_name() == "FakeQuantize" for op in network.get_ops()):
                passes.run_passes(network)
            _name_by_position(network)
            ov.save_model(network, str(target), compress_to_fp16=False)
        except RuntimeError as err:
            raise refused(self.name, f"OpenVINO does not convert the ONNX file: {_said(err)}") from err
        return Artefact(
            target=self.name,
            files=(target, target.with_suffix(".bin")),
            runtime=_runtime(ov),
            notes={"operators": len(network.get_ops())},
        )

    def ask(self, model: Path) -> tuple[str, list[str]] | None:
        """Asks OpenVINO's ONNX reader."""
        if importlib.util.find_spec("openvino") is None:
            return None
        import openvino as ov

        try:
            ov.Core().read_model(str(model))
        except RuntimeError as err:
            return _runtime(ov), [_said(err)]
        return _runtime(ov), []

    def run(self, artefact: Artefact, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs the IR on one thread of the CPU; float32 is computed in float32."""
        return run_artefact(artefact, images, runtime="openvino")


def _runtime(ov: ModuleType) -> str:
    return f"OpenVINO {ov.__version__.split('-')[0]}"


def _said(err: Exception) -> str:
    """The last line says what is wrong; those before it name OpenVINO's own source files."""
    return [line.strip() for line in str(err).splitlines() if line.strip()][-1]


def _name_by_position(network: Any) -> None:
    """Names that hold a counter of the process become names by position, so that equal models are equal files."""
    for i, op in enumerate(network.get_ordered_ops()):
        if _COUNTED.fullmatch(op.get_friendly_name()):
            op.set_friendly_name(f"{op.get_type_name()}_{i}")
