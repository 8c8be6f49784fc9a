"""The recipe of float16: all blocks but those that are unsafe in it, by the values that they reach on real images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import final

import onnx

from nas2edge.export.float16 import LARGEST, belongs, to_float16
from nas2edge.export.inputs import CalibrationImages
from nas2edge.export.parity import FLOAT16, SAME_FLOAT16
from nas2edge.export.precision import Recipe, Reduced
from nas2edge.export.ranges import float_tensors, greatest_values
from nas2edge.plan import LayerSpec

CALIBRATION_IMAGES = 256


@final
class Float16(Recipe):
    """Halves a network.

    Args:
        model: In float32.
        layers: Its plan.
        images: Calibration images.
        keep: Blocks or layers (`<block>.<op>`) to leave in float32.
    """

    precision, tolerance, same, always_sensitive = "fp16", FLOAT16, SAME_FLOAT16, False

    def __init__(
        self,
        model: onnx.ModelProto,
        layers: Sequence[LayerSpec],
        images: CalibrationImages,
        *,
        keep: Collection[str] = (),
    ) -> None:
        self._model, self._layers, self._keep = model, layers, frozenset(keep)
        self._images = len(images)
        self._greatest = greatest_values(model, float_tensors(model), images.fed)

    def blocks(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self._layers if layer.name not in self._keep)

    def make(self, kept: Collection[str]) -> Reduced:
        wanted = {*kept, *self._keep}
        keep = {node.name: "as asked" for node in self._model.graph.node if belongs(node.name, wanted)}
        halved = to_float16(self._model, self._greatest, keep=keep)
        reached = max(self._greatest.values())
        why = Counter(halved.kept.values())
        reasons = ", ".join(f"{n} for {reason}" for reason, n in sorted(why.items()))
        said = f"values up to {reached:,.3g}, float16 ends at {LARGEST:,.0f}"
        said += f"; {len(halved.kept)} of {len(self._model.graph.node)} nodes in float32" + (
            f" ({reasons})" if why else ""
        )
        details = {
            "greatest_value": reached,
            "kept_in_float32": dict(halved.kept),
            "weights": halved.weights,
            "weights_below_normal": halved.tiny_weights,
            "calibration_images": self._images,
        }
        return Reduced(model=halved.model, said=said, faults=(), details=details)
