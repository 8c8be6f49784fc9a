"""Accuracy of sub-networks: cut out, recalibrated on calibration images, tested on validation images.

>>> evaluator = make_evaluator(load_supernet("builtin:tiny"))
>>> accuracies = evaluator([space.smallest(), space.largest()])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from nas2edge.errors import DataError
from nas2edge.space import SubnetConfig
from nas2edge.supernet.blocks import resize
from nas2edge.supernet.checkpoint import LoadedSupernet
from nas2edge.supernet.images import ImageSet, has_split, read_images
from nas2edge.supernet.static import StaticNet, extract, recalibrate
from nas2edge.supernet.weights_file import Preprocess

BATCH = 250


@final
class SupernetEvaluator:
    """Measures the top-1 accuracy of sub-networks with the supernet's weights.

    Args:
        supernet: The supernet.
        calibration: Images to recalibrate on.
        tested: Images to measure the accuracy on.
    """

    def __init__(self, supernet: LoadedSupernet, *, calibration: ImageSet, tested: ImageSet) -> None:
        preprocess = supernet.info.preprocess
        self._supernet = supernet
        device = next(supernet.model.parameters()).device
        self._calibration = Resized(normalise(calibration, preprocess).to(device))
        self._tested = Resized(normalise(tested, preprocess).to(device))
        self._labels = torch.from_numpy(tested.labels).to(device)

    @property
    def tested(self) -> int:
        """Number of images that accuracies are measured on."""
        return len(self._labels)

    def __call__(self, subnets: Sequence[SubnetConfig]) -> list[float]:
        """Returns the accuracy of each sub-network, in percent."""
        return [self.accuracy(self.network(subnet)) for subnet in subnets]

    def network(self, subnet: SubnetConfig) -> StaticNet:
        """Cuts out a sub-network and recalibrates it on the calibration images."""
        net = extract(self._supernet.model, subnet).to(memory_format=torch.channels_last)
        recalibrate(net, self._calibration.batches(subnet.resolution))
        return net

    def accuracy(self, net: StaticNet) -> float:
        """Returns the top-1 accuracy of a network on the tested images, in percent."""
        with torch.no_grad():
            predicted = torch.cat([net(batch).argmax(1) for batch in self._tested.batches(net.resolution)])
        return 100.0 * float((predicted == self._labels).float().mean())


@final
class Resized:
    """Images at every resolution asked for, each resized once.

    Args:
        images: Normalised, shape (N, 3, S, S).
    """

    def __init__(self, images: Tensor) -> None:
        self._at: dict[int, Tensor] = {}
        self._images = images

    def batches(self, resolution: int) -> Iterator[Tensor]:
        """Yields batches of 250 images (the last may be smaller), in channels-last memory."""
        if resolution not in self._at:
            resized = resize(self._images, resolution)
            self._at[resolution] = resized.contiguous(memory_format=torch.channels_last)
        yield from torch.split(self._at[resolution], BATCH)


def make_evaluator(
    supernet: LoadedSupernet, *, data: Path | None = None, split: str = "validation"
) -> SupernetEvaluator:
    """Returns an evaluator on the images beside the weights, or on a split of the user's own.

    Args:
        supernet: The supernet.
        data: Folder or zip file with the split; its "calibration", if it has one, replaces that beside the weights.
        split: The split to measure the accuracy on.

    Raises:
        DataError: There are no images, they do not decode, or their classes are not the supernet's.
    """
    own = data if data is not None and has_split(data, "calibration") else None
    return SupernetEvaluator(
        supernet,
        calibration=load_images(supernet, "calibration", data=own),
        tested=load_images(supernet, split, data=data),
    )


def normalise(images: ImageSet, preprocess: Preprocess) -> Tensor:
    """Returns float32 images (N, 3, S, S): divided by 255, minus mean, divided by std."""
    mean = torch.tensor(preprocess.mean).view(3, 1, 1)
    std = torch.tensor(preprocess.std).view(3, 1, 1)
    return (torch.from_numpy(images.pixels).float() / 255.0 - mean) / std


def load_images(supernet: LoadedSupernet, split: str, *, data: Path | None = None) -> ImageSet:
    """Reads a split for a supernet: from `data`, else from the images beside its weights.

    Raises:
        DataError: There are no images, they do not decode, or their classes are not the supernet's.
    """
    info = supernet.info
    source = data or info.images
    if source is None:
        raise DataError(f"no images lie beside {info.path}; give a folder with {split}/<class>/<image> by --data")
    images = read_images(source, split, image_size=info.preprocess.image_size)
    if images.classes != info.classes:
        odd = sorted(set(images.classes) ^ set(info.classes))[:6]
        raise DataError(
            f"{source} ({split}) has {len(images.classes)} classes, the supernet {len(info.classes)}; "
            f"they differ in: {', '.join(odd)}"
        )
    assert np.all(images.labels < len(info.classes))
    return images
