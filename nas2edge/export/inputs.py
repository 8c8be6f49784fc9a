"""The images that an export is checked on: prepared for the network, in parts that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nas2edge.supernet.blocks import resize
from nas2edge.supernet.checkpoint import LoadedSupernet
from nas2edge.supernet.evaluate import load_images, normalise
from nas2edge.supernet.images import ImageSet, has_split

PARITY_IMAGES = 64
"""Images whose logits are compared at every stage."""
ACCURACY_IMAGES = 2000
"""Validation images that accuracies are measured on, at most."""
STORED_IMAGES = 4
BATCH = 250

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some labelled images.

    Args:
        prepared: As the network takes them, float32 (N, 3, R, R).
        labels: Index of each one's class, (N,).
    """

    prepared: Array
    labels: Indices


@final
class Inputs:
    """Validation and calibration images of a supernet, at a resolution.

    Args:
        supernet: Whose images, and how it prepares them.
        resolution: Side of the network's input.
        data: Folder or zip file of the user's own; its "calibration", if it has one, replaces that beside the weights.

    Raises:
        DataError: There are no images, they do not decode, or their classes are not the supernet's.
    """

    def __init__(self, supernet: LoadedSupernet, resolution: int, *, data: Path | None = None) -> None:
        self._supernet, self._resolution, self._data = supernet, resolution, data
        self._images = load_images(supernet, "validation", data=data)
        self._chosen = spread(len(self._images), ACCURACY_IMAGES)
        self.sample = self._prepared(self._images, spread(len(self._images), PARITY_IMAGES))
        """Images that every stage compares, (N, 3, R, R)."""

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
        for part in divide(self._chosen):
            yield Part(prepared=self._prepared(self._images, part), labels=self._images.labels[part])

    def calibration(self, wanted: int | None = None) -> CalibrationImages:
        """Returns so many calibration images, evenly from all classes; None for all.

        Raises:
            DataError: There are none.
        """
        own = self._data if self._data is not None and has_split(self._data, "calibration") else None
        images = load_images(self._supernet, "calibration", data=own)
        chosen = spread(len(images), wanted or len(images))
        return CalibrationImages(subset(images, chosen), self._supernet, self._resolution)

    def _prepared(self, images: ImageSet, indices: Indices) -> Array:
        normalised = normalise(subset(images, indices), self._supernet.info.preprocess)
        return resize(normalised, self._resolution).contiguous().numpy()


@final
class CalibrationImages:
    """Images that statistics and ranges are taken from; never the ones that accuracies are measured on."""

    def __init__(self, images: ImageSet, supernet: LoadedSupernet, resolution: int) -> None:
        self._images, self._supernet, self._resolution = images, supernet, resolution

    def __len__(self) -> int:
        return len(self._images)

    def normalised(self) -> Iterator[Tensor]:
        """Yields batches (N, 3, S, S), normalised but not resized, of nearly equal size."""
        for part in divide(np.arange(len(self._images))):
            yield normalise(subset(self._images, part), self._supernet.info.preprocess)


def spread(n: int, wanted: int) -> Indices:
    """Returns evenly spaced indices: images stand sorted by class, so these are of all classes."""
    return np.linspace(0, n - 1, min(n, wanted)).astype(np.int64)


def divide(indices: Indices) -> list[Indices]:
    """Divides indices into equal batches: the average over batches gives each image the same weight."""
    return np.array_split(indices, -(-len(indices) // BATCH))


def subset(images: ImageSet, indices: Indices) -> ImageSet:
    """Returns some of the images."""
    return ImageSet(pixels=images.pixels[indices], labels=images.labels[indices], classes=images.classes)
