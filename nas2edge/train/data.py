"""Training images: split into those to train on and those set apart, and served in augmented batches.

Small images are decoded once and held in memory (`MemorySource`); large ones are read, cropped and augmented as they
are needed, by worker processes (`FileSource`). Which it is, the recipe says ("augmentation").
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas2edge.cores import clean_processes
from nas2edge.errors import DataError
from nas2edge.optional import require
from nas2edge.supernet.images import ImageFile, ImageSet, decode, has_split, list_images, open_image, split_off
from nas2edge.supernet.shards import TarEntry
from nas2edge.supernet.weights_file import Preprocess
from nas2edge.train.augment import flip_and_crop
from nas2edge.train.recipe import Recipe

CPU = torch.device("cpu")
_STATISTICS_IMAGES = 2000
Batch = tuple[Tensor, Tensor]
"""Normalised images (n, 3, S, S) and labels (n,)."""
_Made = tuple[Tensor, Tensor, list[str]]
"""A batch, and why some of its files are not in it."""
OPEN_SHARDS = 16
"""Shards that images are drawn from at a time."""
MAX_SKIPPED = 0.01
"""Share of the training images that may not decode."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A batch to be, or one process's share of it.

    Args:
        images: Numbers of all the batch's images: shape (n,).
        seed: Of the augmentation.
        rank: Number of the process that asks.
        world: Processes that share the batch.
    """

    images: Tensor
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def share(self) -> Tensor:
        """Numbers of the images that this process serves: shape (n / world,)."""
        return self.images[self.rank :: self.world]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainFiles:
    """Files of a run, split so that no image serves both to train and to validate.

    Args:
        training: To train on.
        calibration: Some of the training images, for recalibration.
        validation: Never trained on.
        classes: Class names.
    """

    training: list[ImageFile]
    calibration: list[ImageFile]
    validation: list[ImageFile]
    classes: tuple[str, ...]


class BatchSource(ABC):
    """Serves augmented batches of the training images."""

    preprocess: Preprocess

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of training images."""

    def order(self, seed: int) -> Tensor:
        """Returns the numbers of all images in the order of an epoch: shape (len,)."""
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))

    @abstractmethod
    def batches(self, requests: Sequence[Request]) -> Iterator[Batch]:
        """Yields a batch for each request; an equal request gives an equal batch, whatever came before it."""


def list_files(source: Path, *, held_out: int, calibration: int, seed: int) -> TrainFiles:
    """Lists the split "train" and sets validation and calibration images apart.

    Args:
        source: Folder or zip file with `train/<class>/*`, and perhaps `val/<class>/*`.
        held_out: Validation images to set apart, from "val" if there is one, else from "train".
        calibration: Training images to keep for recalibration.
        seed: Chooses them.

    Raises:
        DataError: The images are missing or too few, or the two splits have other classes.
    """
    rng = np.random.default_rng(seed)
    files, classes = list_images(source, "train")
    if has_split(source, "val"):
        validation, val_classes = list_images(source, "val")
        if val_classes != classes:
            raise DataError(f"{source}: the classes of train and val differ: {sorted(set(classes) ^ set(val_classes))}")
        validation, _ = split_off(validation, held_out, rng)
    else:
        if len(files) < 2 * held_out:
            raise DataError(
                f"{source} has {len(files)} training images; too few to set {held_out} apart for validation"
            )
        validation, files = split_off(files, held_out, rng)
    kept, _ = split_off(files, calibration, rng)
    return TrainFiles(training=files, calibration=kept, validation=validation, classes=classes)


def make_source(
    files: TrainFiles, recipe: Recipe, *, image_size: int, workers: int = 2, device: torch.device = CPU
) -> BatchSource:
    """Returns the source that a recipe asks for.

    Args:
        files: The files of the run.
        recipe: Gives the augmentation.
        image_size: Side of the images served.
        workers: Processes that read files; the memory source has none.
        device: What trains: images in memory are kept there, and those from files go there without a detour.

    Raises:
        DataError: More than one file in a hundred does not decode, or all together do not fit in memory.
        MissingDependencyError: An augmentation needs torchvision, which is not installed.
    """
    if recipe.augmentation == "flip-crop":
        skipped = Skipped(len(files.training))
        images = decode(files.training, files.classes, image_size=image_size, skip=lambda err: skipped.add(str(err)))
        return MemorySource(images, padding=recipe.crop_padding, device=device)
    return FileSource(
        files,
        image_size=image_size,
        auto_augment=recipe.auto_augment,
        workers=workers,
        pinned=device.type == "cuda",
    )


@final
class Skipped:
    """Files that did not decode: each is said once, and too many are refused.

    Args:
        files: Of how many.
    """

    def __init__(self, files: int) -> None:
        self._files = files
        self.problems: dict[str, None] = {}

    def add(self, problem: str) -> None:
        """Takes note of a file.

        Raises:
            DataError: More than one in a hundred of all files, and more than one, did not decode.
        """
        if problem in self.problems:
            return
        self.problems[problem] = None
        logger.warning("left out: %s", problem)
        if len(self.problems) > max(1, MAX_SKIPPED * self._files):
            raise DataError(
                f"{len(self.problems)} of {self._files} training images do not decode, and {MAX_SKIPPED:.0%} may; "
                f"the first: {next(iter(self.problems))}"
            )


@final
class MemorySource(BatchSource):
    """Images held in memory, flipped and shifted.

    Args:
        images: The training images.
        padding: Greatest shift in pixels.
        device: Where they are kept and augmented.
    """

    def __init__(self, images: ImageSet, *, padding: int, device: torch.device = CPU) -> None:
        self.preprocess = statistics(images)
        self._padding = padding
        self._pixels = torch.from_numpy(images.pixels).to(device)
        self._labels = torch.from_numpy(images.labels).to(device)

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, requests: Sequence[Request]) -> Iterator[Batch]:
        device = self._pixels.device
        mean = torch.tensor(self.preprocess.mean, device=device).view(3, 1, 1)
        std = torch.tensor(self.preprocess.std, device=device).view(3, 1, 1)
        for request in requests:
            share = request.share.to(device)
            images = (self._pixels[share].float() / 255.0 - mean) / std
            generator = torch.Generator().manual_seed(request.seed)
            yield (
                flip_and_crop(
                    images, padding=self._padding, generator=generator, rank=request.rank, world=request.world
                ),
                self._labels[share],
            )


@final
class FileSource(BatchSource):
    """Files read by worker processes: a random crop of 8 to 100 % of the area, resized bicubically, perhaps flipped.

    AutoAugment, where asked for, is torchvision's ImageNet policy (Cubuk et al. 2019); the original AlphaNet also
    jitters its magnitudes.

    Args:
        files: The files of the run.
        image_size: Side of the crops.
        auto_augment: Whether to apply AutoAugment.
        workers: Processes that read; 0 reads in this one.
        pinned: Whether batches are put where a GPU can fetch them while it computes.

    Raises:
        DataError: More than one file in a hundred of those that the statistics are taken from does not decode.
        MissingDependencyError: torchvision is not installed.
    """

    def __init__(
        self, files: TrainFiles, *, image_size: int, auto_augment: bool, workers: int, pinned: bool = False
    ) -> None:
        require("torchvision", extra="train", purpose="augmenting images from files")
        step = max(1, len(files.training) // _STATISTICS_IMAGES)
        some, self._skipped = files.training[::step], Skipped(len(files.training))
        skipped = Skipped(len(some))
        images = decode(some, files.classes, image_size=image_size, skip=lambda err: skipped.add(str(err)))
        self.preprocess = statistics(images)
        self._dataset = _Crops(files.training, self.preprocess, auto_augment=auto_augment)
        self._workers, self._pinned = workers, pinned
        self._shards = _by_shard(files.training)

    def __len__(self) -> int:
        return len(self._dataset)

    def order(self, seed: int) -> Tensor:
        """Shuffles all images; those in shards within a few shards at a time, so that reads stay close together."""
        if self._shards is None:
            return super().order(seed)
        generator = torch.Generator().manual_seed(seed)
        groups = torch.split(torch.randperm(len(self._shards), generator=generator), OPEN_SHARDS)
        parts = [torch.cat([self._shards[i] for i in group.tolist()]) for group in groups]
        return torch.cat([part[torch.randperm(len(part), generator=generator)] for part in parts])

    def batches(self, requests: Sequence[Request]) -> Iterator[Batch]:
        items = [[(image, request.seed + image) for image in request.share.tolist()] for request in requests]
        loader: DataLoader[Any] = DataLoader(
            self._dataset,
            batch_sampler=items,
            collate_fn=_collate,
            num_workers=self._workers,
            pin_memory=self._pinned,
            multiprocessing_context=clean_processes([__name__]) if self._workers else None,
            worker_init_fn=_single_threaded,
        )
        made: _Made
        for made in loader:
            images, labels, problems = made
            for problem in problems:
                self._skipped.add(problem)
            if len(labels) > 1:  # one image alone cannot be normalised
                yield images, labels


@final
class _Crops(Dataset[tuple[Tensor, int] | str]):
    """Decodes, crops, augments and normalises one file at a time; says so where one does not decode."""

    def __init__(self, files: list[ImageFile], preprocess: Preprocess, *, auto_augment: bool) -> None:
        from torchvision.transforms import v2

        fill = [round(255 * value) for value in preprocess.mean]
        steps: list[Any] = [
            v2.RandomResizedCrop(preprocess.image_size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
        ]
        if auto_augment:
            steps.append(v2.AutoAugment(interpolation=v2.InterpolationMode.BICUBIC, fill=fill))
        steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(preprocess.mean, preprocess.std)]
        self._files = files
        self._transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int] | str:
        number, seed = item
        file = self._files[number]
        try:
            image = open_image(file.path)
        except DataError as err:
            return str(err)
        with torch.random.fork_rng(devices=[]):  # the transforms draw from the global generator
            torch.manual_seed(seed)
            return self._transform(image), file.label


def _by_shard(files: list[ImageFile]) -> list[Tensor] | None:
    """Returns the numbers of each shard's images, or None where images lie in no shards."""
    shards: dict[Path, list[int]] = {}
    for i, file in enumerate(files):
        if not isinstance(file.path, TarEntry):
            return None
        shards.setdefault(file.path.shard, []).append(i)
    return [torch.tensor(numbers) for numbers in shards.values()]


def _collate(items: list[tuple[Tensor, int] | str]) -> _Made:
    good = [item for item in items if not isinstance(item, str)]
    images = torch.stack([image for image, _ in good]) if good else torch.empty(0)
    labels = torch.tensor([label for _, label in good], dtype=torch.int64)
    return images, labels, [item for item in items if isinstance(item, str)]


def statistics(images: ImageSet) -> Preprocess:
    """Returns how to prepare images by the mean and standard deviation of each channel, from at most 10,000 of them."""
    sample = images.pixels[:: max(1, len(images) // 10_000)].astype(np.float32) / 255.0
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3))
    r, g, b = (round(float(value), 4) for value in mean)
    sr, sg, sb = (round(max(float(value), 1e-3), 4) for value in std)
    return Preprocess(image_size=images.pixels.shape[-1], mean=(r, g, b), std=(sr, sg, sb))


def _single_threaded(worker: int) -> None:
    torch.set_num_threads(1)
