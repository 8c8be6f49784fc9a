"""The stages of runtimes and targets: each is compared where it runs on this machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nas2edge.errors import EngineNotBuiltError, MissingDependencyError, RuntimeFailedError
from nas2edge.export.exporter import Artefact, BatchRange, Exporter
from nas2edge.export.inputs import Fed, Inputs
from nas2edge.export.parity import compare
from nas2edge.export.proof import Proof
from nas2edge.export.rows import Row
from nas2edge.export.stages import FAILED, SKIPPED, UNCHECKED
from nas2edge.export.variant import Variant
from nas2edge.runtimes import RUNTIMES, Session, open_session
from nas2edge.runtimes.registry import check_installed, suffixes_of

MOST_AT_ONCE = 256
"""Images in one batch, at most, when the ends of a range of batch sizes are tried."""

Array = npt.NDArray[np.float32]


def run_everywhere(variant: Variant, batch: BatchRange, inputs: Inputs, proof: Proof) -> None:
    """Runs an ONNX file in every runtime here that loads it, at the least and the greatest batch size that it takes.

    Raises:
        ParityError: A runtime computes something else, or does not load the file.
    """
    for runtime in RUNTIMES:
        if variant.file.path.suffix not in suffixes_of(runtime):
            continue
        name = stage_name(f"in {runtime}", variant.precision)
        try:
            check_installed(runtime)
        except MissingDependencyError:
            continue
        try:
            with open_session(variant.file.path, runtime=runtime) as session:
                sizes = sorted({min(size, MOST_AT_ONCE) for size in batch})
                runs = [run_in_batches(session, inputs.fed, size) for size in sizes]
                said = f"{session.runtime}, batch {' and '.join(map(str, sizes))}"
        except RuntimeFailedError as err:
            proof.add(name, FAILED, str(err))
            continue
        proof.compare(
            name,
            np.concatenate([variant.logits] * len(runs)),
            np.concatenate(runs),
            tolerance=variant.same,
            note=said,
        )


def build_target(
    exporter: Exporter, variant: Variant, batch: BatchRange, inputs: Inputs, proof: Proof, reference: Array
) -> tuple[Row, Artefact | None]:
    """Builds a target's artefact of an ONNX file, and compares it.

    Args:
        exporter: The target.
        variant: What it builds from.
        batch: Batch sizes that the artefact must take.
        inputs: The images.
        proof: Gets the stage.
        reference: What the float32 network computes for the compared images.

    Returns:
        What became of it, and the artefact, or None if it was not built; the row's note then says why.

    Raises:
        ParityError: It computes something else than the ONNX file.
    """
    name = stage_name(exporter.name, variant.precision)
    row = Row(target=exporter.name, precision=variant.precision, accuracy=variant.accuracy)
    try:
        artefact = exporter.build(variant.file.path, batch=batch)
    except EngineNotBuiltError as err:
        proof.add(name, SKIPPED, str(err).splitlines()[0])
        return replace(row, note=str(err)), None
    size = sum(made.stat().st_size for made in artefact.files)
    row = replace(row, files=tuple(made.name for made in artefact.files), size_bytes=size, runtime=artefact.runtime)
    if artefact.why_not_run:
        return _unchecked(name, row, artefact, artefact.why_not_run, proof), artefact
    try:
        logits = exporter.run(artefact, inputs.fed)
    except EngineNotBuiltError as err:  # such as a device that does not answer any more
        return _unchecked(name, row, artefact, str(err).splitlines()[0], proof), artefact
    except RuntimeFailedError as err:
        proof.add(name, FAILED, str(err))
        raise
    proof.compare(name, variant.logits, logits, tolerance=variant.same, note=artefact.runtime)
    cosine = compare(reference, logits, tolerance=variant.same).cosine
    return replace(row, parity=cosine), artefact


def _unchecked(name: str, row: Row, artefact: Artefact, why: str, proof: Proof) -> Row:
    summary = f"{artefact.files[0].name} ({row.size_bytes / 1e6:.1f} MB) by {artefact.runtime}; {why}"
    proof.add(name, UNCHECKED, summary, dict(artefact.notes))
    return replace(row, note=why)


def onnx_row(variant: Variant, reference: Array) -> Row:
    """Returns the row of an ONNX file itself."""
    size = variant.file.path.stat().st_size
    cosine = compare(reference, variant.logits, tolerance=variant.same).cosine
    return Row(
        target="onnx",
        precision=variant.precision,
        files=(variant.file.path.name,),
        size_bytes=size,
        runtime=variant.file.artefact().runtime,
        accuracy=variant.accuracy,
        parity=cosine,
    )


def run_in_batches(session: Session, images: Fed, size: int) -> Array:
    """Returns the logits of images that are run in batches of a size; the last batch is filled up."""
    padded = np.concatenate([images, np.repeat(images[-1:], -len(images) % size, axis=0)])
    parts = [session.run(padded[i : i + size]) for i in range(0, len(padded), size)]
    logits: Array = np.concatenate(parts)[: len(images)]
    return logits


def stage_name(what: str, precision: str) -> str:
    """Returns what a stage of a precision is called; float32 is not mentioned."""
    return what if precision == "fp32" else f"{what} {precision}"
