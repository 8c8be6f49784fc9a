"""The recipe of a precision, as an export asks for it."""

from __future__ import annotations

from collections.abc import Sequence

from nas2edge.export.half import CALIBRATION_IMAGES as HALF_IMAGES
from nas2edge.export.half import Float16
from nas2edge.export.inputs import Inputs
from nas2edge.export.int8 import CALIBRATION_IMAGES as INT8_IMAGES
from nas2edge.export.int8 import Int8
from nas2edge.export.precision import Recipe
from nas2edge.export.request import ExportRequest
from nas2edge.export.variant import Variant
from nas2edge.plan import LayerSpec


def make_recipe(
    request: ExportRequest, precision: str, base: Variant, layers: Sequence[LayerSpec], inputs: Inputs
) -> Recipe:
    """Returns the recipe of "fp16" or "int8".

    Args:
        request: What was asked for.
        precision: Which.
        base: The network in float32.
        layers: Its plan.
        inputs: Its images, of which the calibration images are looked at.

    Raises:
        InputError: Nothing is left to quantise.
        DataError: There are no calibration images.
    """
    if precision == "fp16":
        return Float16(base.model, layers, inputs.calibration(HALF_IMAGES), keep=request.keep_fp32)
    images = inputs.calibration(INT8_IMAGES)
    return Int8(
        base.model,
        layers,
        images,
        calibrator=request.calibrator,
        keep=request.keep_fp32,
        rest=request.int8_rest,
    )
