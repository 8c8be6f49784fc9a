"""The stages of the targets: each builds its artefact, and is compared where that runs on this machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas2edge.errors import EngineNotBuiltError
from nas2edge.export.exporter import Artefact, BatchRange, Exporter
from nas2edge.export.inputs import Inputs
from nas2edge.export.proof import Proof
from nas2edge.export.stages import SKIPPED, UNCHECKED
from nas2edge.export.to_onnx import OnnxFile

Array = npt.NDArray[np.float32]


def build_target(
    exporter: Exporter, file: OnnxFile, batch: BatchRange, reference: Array, inputs: Inputs, proof: Proof
) -> Artefact | EngineNotBuiltError:
    """Builds a target's artefact of an ONNX file, and compares it.

    Args:
        exporter: The target.
        file: What it builds from.
        batch: Batch sizes that the artefact must take.
        reference: Logits that it must give for the compared images.
        inputs: The images.
        proof: Gets the stage.

    Returns:
        The artefact, or why it was not built.

    Raises:
        ParityError: It computes something else.
    """
    name = exporter.name
    try:
        artefact = exporter.build(file.path, batch=batch)
    except EngineNotBuiltError as err:
        proof.add(name, SKIPPED, str(err).splitlines()[0])
        return err
    if artefact.why_not_run:
        size = sum(made.stat().st_size for made in artefact.files) / 1e6
        summary = f"{artefact.files[0].name} ({size:.1f} MB) by {artefact.runtime}; {artefact.why_not_run}"
        proof.add(name, UNCHECKED, summary, dict(artefact.notes))
        return artefact
    proof.compare(name, reference, exporter.run(artefact, inputs.sample), note=artefact.runtime)
    return artefact
