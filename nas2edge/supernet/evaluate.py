"""Accuracy of sub-networks: cut out, recalibrated on calibration images, tested on validation images.

>>> evaluator = make_evaluator(load_supernet("builtin:tiny"))
>>> accuracies = evaluator([space.smallest(), space.largest()])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, final

import numpy as np
import torch
from torch import Tensor, nn

from nas2edge.errors import DataError
from nas2edge.space import SubnetConfig
from nas2edge.supernet.blocks import resize
from nas2edge.supernet.checkpoint import LoadedSupernet
from nas2edge.supernet.images import ImageSet, batches_across, has_split, read_images
from nas2edge.supernet.static import StaticNet, extract, recalibrate
from nas2edge.supernet.synced import Total
from nas2edge.supernet.weights_file import Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One process's share of an evaluation that several do together.

    Args:
        rank: Its number, from 0.
        world: How many there are.
        total: Returns the sum of a tensor over all of them; they must all call it.
    """

    rank: int = 0
    world: int = 1
    total: Total = lambda value: value


WHOLE = Share()


@final
class SupernetEvaluator:
    """Measures the top-1 accuracy of sub-networks with the supernet's weights.

    Args:
        supernet: The supernet.
        calibration: Images to recalibrate on.
        tested: Images to measure the accuracy on.
        share: This process's share of the batches; statistics and accuracies are those over all processes.
    """

    def __init__(
        self, supernet: LoadedSupernet, *, calibration: ImageSet, tested: ImageSet, share: Share = WHOLE
    ) -> None:
        self._share = share
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
        return list(self.each(subnets))

    def each(self, subnets: Sequence[SubnetConfig]) -> Iterator[float]:
        """Yields the accuracies in turn, each when it is asked for."""
        for subnet in subnets:
            yield self.accuracy(self.network(subnet))

    def network(self, subnet: SubnetConfig) -> StaticNet:
        """Cuts out a sub-network and recalibrates it on the calibration images."""
        net = extract(self._supernet.model, subnet).to(memory_format=torch.channels_last)
        batches = self._mine(self._calibration, subnet.resolution)
        recalibrate(net, batches)
        if self._share.world > 1:
            self._average_statistics(net, len(batches))
        return net

    def accuracy(self, net: StaticNet) -> float:
        """Returns the top-1 accuracy of a network on the tested images, in percent."""
        labels = self._tested.divide(self._labels)[self._share.rank :: self._share.world]
        right = torch.zeros(1, dtype=torch.float64, device=self._labels.device)
        with torch.no_grad():
            for batch, expected in zip(self._mine(self._tested, net.resolution), labels, strict=True):
                right += (net(batch).argmax(1) == expected).sum()
        return 100.0 * float(self._share.total(right)) / len(self._labels)

    def _mine(self, images: Resized, resolution: int) -> list[Tensor]:
        return images.batches(resolution)[self._share.rank :: self._share.world]

    def _average_statistics(self, net: StaticNet, batches: int) -> None:
        """Replaces statistics by their mean over all processes' batches: what one process alone would have found."""
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        buffers = [cast(Tensor, buffer) for norm in norms for buffer in (norm.running_mean, norm.running_var)]
        flat = torch.cat([buffer.double() * batches for buffer in buffers] + [buffers[0].new_full((1,), batches)])
        *means, n = torch.split(self._share.total(flat), [buffer.numel() for buffer in buffers] + [1])
        for buffer, mean in zip(buffers, means, strict=True):
            buffer.copy_(mean / n)


@final
class Resized:
    """Images at every resolution asked for, each resized once, in batches across all of them.

    Args:
        images: Normalised, shape (N, 3, S, S).
    """

    def __init__(self, images: Tensor) -> None:
        self._at: dict[int, Tensor] = {}
        self._batches = [torch.from_numpy(indices).to(images.device) for indices in batches_across(len(images))]
        self._images = torch.cat(self.divide(images))

    def batches(self, resolution: int) -> list[Tensor]:
        """Returns the batches at a resolution, in channels-last memory."""
        if resolution not in self._at:
            resized = resize(self._images, resolution)
            self._at[resolution] = resized.contiguous(memory_format=torch.channels_last)
        return list(torch.split(self._at[resolution], [len(indices) for indices in self._batches]))

    def divide(self, values: Tensor) -> list[Tensor]:
        """Divides what belongs to the images, as images stand in the set, like the batches."""
        return [values[indices] for indices in self._batches]


def make_evaluator(
    supernet: LoadedSupernet, *, data: Path | None = None, split: str = "validation", share: Share = WHOLE
) -> SupernetEvaluator:
    """Returns an evaluator on the images beside the weights, or on a split of the user's own.

    Args:
        supernet: The supernet.
        data: Folder or zip file with the split; its "calibration", if it has one, replaces that beside the weights.
        split: The split to measure the accuracy on.
        share: This process's share, where several evaluate together.

    Raises:
        DataError: There are no images, they do not decode, or their classes are not the supernet's.
    """
    own = data if data is not None and has_split(data, "calibration") else None
    return SupernetEvaluator(
        supernet,
        calibration=load_images(supernet, "calibration", data=own),
        tested=load_images(supernet, split, data=data),
        share=share,
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
