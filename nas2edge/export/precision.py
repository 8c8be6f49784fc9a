"""The stages "fp16" and "int8": a network in less precision, within a budget of accuracy.

A *recipe* knows how to make the network with some blocks kept in float32. Where the accuracy on validation images drops
by more than the budget, blocks are handed back to float32, the most sensitive first, as few as it takes; how sensitive
a block is, is measured by reducing it alone, on calibration images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
import onnx

from nas2edge.export.blame import onnx_blocks, worst_blocks
from nas2edge.export.inputs import STORED_IMAGES, Inputs
from nas2edge.export.onnx_file import OnnxFile, run_model
from nas2edge.export.parity import Tolerance, compare, sqnr_db
from nas2edge.export.proof import Proof
from nas2edge.export.variant import Variant, accuracy_of
from nas2edge.plan import LayerSpec

SENSITIVITY_IMAGES = 128

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """A network in less precision.

    Args:
        model: The graph.
        said: What was done, in a few words.
        faults: What is not as it should be in the graph, read anew.
        details: For the report.
    """

    model: onnx.ModelProto
    said: str
    faults: Sequence[str]
    details: Mapping[str, Any]


class Recipe(ABC):
    """Makes a network in less precision."""

    precision: str
    tolerance: Tolerance
    """Of the network, against the one in float32."""
    same: Tolerance
    """Of runtimes, against each other."""
    always_sensitive: bool
    """Whether sensitivities are measured even where the budget holds at once."""

    @abstractmethod
    def blocks(self) -> tuple[str, ...]:
        """Returns the names of the blocks that it would reduce, in the order of the network."""

    @abstractmethod
    def make(self, kept: Collection[str]) -> Reduced:
        """Returns the network with some blocks kept in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """What reducing one block alone does to the network.

    Args:
        block: Its name.
        sqnr_db: Signal to noise of the logits.
        flips: Images with another predicted class.
        images: How many there were.
    """

    block: str
    sqnr_db: float
    flips: int
    images: int


def reduce_precision(
    recipe: Recipe,
    base: Variant,
    file: OnnxFile,
    layers: Sequence[LayerSpec],
    max_drop: float,
    inputs: Inputs,
    proof: Proof,
) -> Variant:
    """Makes a network in less precision and adds its stage.

    Args:
        recipe: How.
        base: The network in float32.
        file: Where it goes.
        layers: The plan.
        max_drop: Points of top-1 that it may lose; one image may be lost in any case.
        inputs: The images.
        proof: Gets the stage.

    Raises:
        ParityError: No choice of blocks keeps the budget, or the graph is not what the recipe says.
    """
    return _Reduction(recipe, base, max_drop, inputs, proof).run(file, layers)


@final
class _Reduction:
    """The search for the fewest blocks to hand back."""

    def __init__(self, recipe: Recipe, base: Variant, max_drop: float, inputs: Inputs, proof: Proof) -> None:
        self._recipe, self._base, self._inputs, self._proof = recipe, base, inputs, proof
        self._allowed = max(max_drop, 100.0 / inputs.measured)
        self._tried: dict[int, tuple[Reduced, Array]] = {}
        self._order: list[str] = []

    def run(self, file: OnnxFile, layers: Sequence[LayerSpec]) -> Variant:
        found: list[Sensitivity] = []
        if self._recipe.always_sensitive or not self._holds(0):
            found = sensitivities(self._recipe, self._base.model, self._inputs, self._proof.on_progress)
            self._order = [item.block for item in sorted(found, key=lambda item: item.sqnr_db)]
        handed = 0 if self._holds(0) else self._fewest()
        reduced, measured = self._result(handed)
        accuracy = accuracy_of(measured, self._inputs.labels)
        drop = self._base.accuracy - accuracy
        file.write(reduced.model)
        details = {
            **reduced.details,
            "accuracy": accuracy,
            "accuracy_fp32": self._base.accuracy,
            "drop": drop,
            "max_drop": self._allowed,
            "handed_back": self._order[:handed],
            "sensitivity": [_sensitivity_dict(item) for item in found],
        }
        said = f"{reduced.said}; top-1 {accuracy:.2f} %, {_signed(-drop)} points"
        if handed:
            said += f"; handed back to float32: {', '.join(self._order[:handed])}"
        report = self._proof.compare(
            self._recipe.precision,
            self._base.measured,
            measured,
            tolerance=self._recipe.tolerance,
            note=said,
            faults=[*self._faults(drop), *reduced.faults[:3]],
            details=details,
            blamed=lambda: self._blamed(reduced.model, layers),
        )
        return Variant(
            precision=self._recipe.precision,
            model=reduced.model,
            file=file,
            logits=run_model(reduced.model, self._inputs.fed),
            measured=measured,
            same=self._recipe.same,
            accuracy=accuracy,
            parity=report,
            details=details,
        )

    def _faults(self, drop: float) -> list[str]:
        if drop <= self._allowed + 1e-9:
            return []
        return [f"top-1 drops by {drop:.2f} points, allowed are {self._allowed:.2f} (--max-drop)"]

    def _fewest(self) -> int:
        """Bisects for the fewest blocks that keep the budget; all but one at most, or nothing would be reduced."""
        fails, holds = 0, max(len(self._order) - 1, 0)
        if not self._holds(holds):
            return holds
        while holds - fails > 1:
            middle = (holds + fails) // 2
            fails, holds = (fails, middle) if self._holds(middle) else (middle, holds)
        return holds

    def _holds(self, handed: int) -> bool:
        _, measured = self._result(handed)
        drop = self._base.accuracy - accuracy_of(measured, self._inputs.labels)
        close = compare(self._base.measured, measured, tolerance=self._recipe.tolerance).passed
        return close and not self._faults(drop)

    def _result(self, handed: int) -> tuple[Reduced, Array]:
        if handed not in self._tried:
            back = f" with {handed} blocks in float32" if handed else ""
            self._proof.on_progress(f"{self._recipe.precision}{back}: accuracy on {self._inputs.measured} images")
            reduced = self._recipe.make(frozenset(self._order[:handed]))
            measured = np.concatenate([run_model(reduced.model, part.fed) for part in self._inputs.parts()])
            self._tried[handed] = reduced, measured
        return self._tried[handed]

    def _blamed(self, model: onnx.ModelProto, layers: Sequence[LayerSpec]) -> str:
        few = self._inputs.fed[:STORED_IMAGES]
        worst = worst_blocks(onnx_blocks(self._base.model, layers, few), onnx_blocks(model, layers, few))
        named = ", ".join(f"{name} {value:.1f} dB" for name, value in worst.items())
        return f"worst blocks: {named}; try --keep-fp32 {','.join(list(worst)[:2])}"


def sensitivities(
    recipe: Recipe, model: onnx.ModelProto, inputs: Inputs, on_progress: Callable[[str], None]
) -> list[Sensitivity]:
    """Reduces every block of a network alone, and measures on calibration images what that does.

    Args:
        recipe: How blocks are reduced.
        model: The network in float32.
        inputs: The images.
        on_progress: Called for every block.
    """
    images = inputs.calibration().few(SENSITIVITY_IMAGES)
    reference, blocks = run_model(model, images), recipe.blocks()
    found = []
    for block in blocks:
        on_progress(f"{recipe.precision}: sensitivity of {block}")
        alone = recipe.make([other for other in blocks if other != block])
        logits = run_model(alone.model, images)
        norm = float(np.linalg.norm(reference))
        difference = float(np.linalg.norm(logits.astype(np.float64) - reference)) / norm if norm else float("inf")
        flips = int((logits.argmax(axis=1) != reference.argmax(axis=1)).sum())
        found.append(Sensitivity(block=block, sqnr_db=sqnr_db(difference), flips=flips, images=len(images)))
    return found


def _sensitivity_dict(item: Sensitivity) -> dict[str, Any]:
    sqnr = item.sqnr_db if np.isfinite(item.sqnr_db) else None
    found = {"block": item.block, "sqnr_db": sqnr, "flips": item.flips, "images": item.images}
    return {**found, "finite": item.sqnr_db > -float("inf")}


def _signed(value: float) -> str:
    return f"{value + 0.0:+.2f}"
