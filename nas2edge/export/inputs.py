"""The images that an export is checked on: prepared for the network, in parts that fit in memory.

Networks take float32 images (N, 3, R, R), normalised and then resized bicubically. An ONNX file with preprocessing of
its own takes *pixels*, uint8 (N, R, R, 3), resized by the same rule before they are normalised, and rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas2edge.supernet.blocks import resize
from nas2edge.supernet.checkpoint import LoadedSupernet
from nas2edge.supernet.evaluate import load_images, normalise
from nas2edge.supernet.images import BATCH, ImageSet, batches_across, has_split
from nas2edge.supernet.weights_file import Preprocess

PARITY_IMAGES = 64
"""Images whose logits are compared at every stage."""
ACCURACY_IMAGES = 2000
"""Validation images that accuracies are measured on, at most."""
STORED_IMAGES = 4
_CHUNK, _CHUNK_SIDE = 25, 64

Array = npt.NDArray[np.float32]
Fed = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some labelled images.

    Args:
        prepared: As the searched network takes them, float32 (N, 3, R, R).
        fed: As the ONNX file takes them: the same, or pixels.
        labels: Index of each one's class, (N,).
    """

    prepared: Array
    fed: Fed
    labels: Indices


@final
class Inputs:
    """Validation and calibration images of a supernet, at a resolution.

    Args:
        supernet: Whose images, and how it prepares them.
        resolution: Side of the network's input.
        data: Folder or zip file of the user's own; its "calibration", if it has one, replaces that beside the weights.
        pixels: Whether the ONNX file takes pixels.

    Raises:
        DataError: There are no images, they do not decode, or their classes are not the supernet's.
    """

    def __init__(
        self, supernet: LoadedSupernet, resolution: int, *, data: Path | None = None, pixels: bool = False
    ) -> None:
        self._preparation = Preparation(supernet.info.preprocess, resolution, pixels=pixels)
        self._supernet, self._data = supernet, data
        self._calibration: ImageSet | None = None
        self._images = load_images(supernet, "validation", data=data)
        self._chosen = spread(len(self._images), ACCURACY_IMAGES)
        self.raw = subset(self._images, spread(len(self._images), PARITY_IMAGES))
        """Images that every stage compares, as they were read."""
        self.fed = self._preparation.fed(self.raw)
        """The same as the ONNX file takes them."""
        self.sample = self._preparation.equal(self.raw)
        """The same as float32 (N, 3, R, R), of exactly the values that the ONNX file computes with."""
        self.labels = self._images.labels[self._chosen]
        """Of the images that `parts` yields."""

    @property
    def measured(self) -> int:
        """Number of images that `parts` yields."""
        return len(self._chosen)

    @property
    def total(self) -> int:
        """Number of validation images that there are."""
        return len(self._images)

    def parts(self) -> Iterator[Part]:
        """Yields the images that accuracies are measured on."""
        for start in range(0, len(self._chosen), BATCH):
            images = subset(self._images, self._chosen[start : start + BATCH])
            prepared = self._preparation.prepared(images)
            fed = self._preparation.fed(images) if self._preparation.pixels else prepared
            yield Part(prepared=prepared, fed=fed, labels=images.labels)

    def calibration(self, wanted: int | None = None) -> CalibrationImages:
        """Returns so many calibration images, evenly from all classes; None for all.

        Raises:
            DataError: There are none.
        """
        if self._calibration is None:
            own = self._data if self._data is not None and has_split(self._data, "calibration") else None
            self._calibration = load_images(self._supernet, "calibration", data=own)
        images = self._calibration
        chosen = spread(len(images), wanted or len(images))
        return CalibrationImages(subset(images, chosen), self._preparation)


@final
class CalibrationImages:
    """Images that statistics and ranges are taken from; never the ones that accuracies are measured on."""

    def __init__(self, images: ImageSet, preparation: Preparation) -> None:
        self._images, self._preparation = images, preparation

    def __len__(self) -> int:
        return len(self._images)

    def normalised(self) -> Iterator[Tensor]:
        """Yields batches (N, 3, S, S) across all classes, normalised but not resized, of nearly equal size."""
        for part in batches_across(len(self._images)):
            yield normalise(subset(self._images, part), self._preparation.preprocess)

    def spread_normalised(self, wanted: int) -> Tensor:
        """Returns some of them, evenly from all classes, normalised but not resized."""
        return normalise(subset(self._images, spread(len(self._images), wanted)), self._preparation.preprocess)

    def few(self, wanted: int) -> Fed:
        """Returns some of them, evenly from all classes, as the ONNX file takes them."""
        return self._preparation.fed(subset(self._images, spread(len(self._images), wanted)))

    def fed(self) -> Iterator[Fed]:
        """Yields small batches as the ONNX file takes them."""
        chunk = self._preparation.chunk
        for start in range(0, len(self._images), chunk):
            chosen = np.arange(start, min(start + chunk, len(self._images)))
            yield self._preparation.fed(subset(self._images, chosen))


@final
class Preparation:
    """How images become what a network takes.

    Args:
        preprocess: As the supernet was trained.
        resolution: Side of the network's input.
        pixels: Whether the ONNX file takes pixels.
    """

    def __init__(self, preprocess: Preprocess, resolution: int, *, pixels: bool) -> None:
        self.preprocess, self.pixels = preprocess, pixels
        self._resolution = resolution
        self.chunk = max(1, min(_CHUNK, _CHUNK * _CHUNK_SIDE**2 // resolution**2))
        """Images at once, where the values of all layers are held in memory."""

    def prepared(self, images: ImageSet) -> Array:
        """Returns float32 (N, 3, R, R): normalised, then resized."""
        return resize(normalise(images, self.preprocess), self._resolution).contiguous().numpy()

    def fed(self, images: ImageSet) -> Fed:
        """Returns what the ONNX file takes: pixels (N, R, R, 3), resized and rounded, or the prepared images."""
        return self._resized(images).permute(0, 2, 3, 1).contiguous().numpy() if self.pixels else self.prepared(images)

    def equal(self, images: ImageSet) -> Array:
        """Returns float32 (N, 3, R, R) that hold what is fed: of pixels, the normalised ones."""
        if not self.pixels:
            return self.prepared(images)
        rounded = ImageSet(pixels=self._resized(images).numpy(), labels=images.labels, classes=images.classes)
        return normalise(rounded, self.preprocess).contiguous().numpy()

    def _resized(self, images: ImageSet) -> Tensor:
        pixels = resize(torch.from_numpy(images.pixels).float(), self._resolution)
        return pixels.round().clamp(0, 255).to(torch.uint8)


def spread(n: int, wanted: int) -> Indices:
    """Returns evenly spaced indices: images stand sorted by class, so these are of all classes."""
    return np.linspace(0, n - 1, min(n, wanted)).astype(np.int64)


def subset(images: ImageSet, indices: Indices) -> ImageSet:
    """Returns some of the images."""
    return ImageSet(pixels=images.pixels[indices], labels=images.labels[indices], classes=images.classes)
