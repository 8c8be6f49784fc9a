"""Labelled images: an ImageFolder (`<split>/<class>/*.jpg`) in a folder or a zip file, decoded to one array.

>>> calibration = read_images(Path("images.zip"), "calibration", image_size=32)
>>> calibration.pixels.shape
(1000, 3, 32, 32)
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nas2edge.errors import DataError
from nas2edge.optional import require
from nas2edge.supernet.shards import TarEntry, class_names, list_shards

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
BATCH = 250
"""Images that are recalibrated on or tested at once."""

_SHORT_SIDE_RATIO = 8 / 7  # resize to 256, crop 224: the customary evaluation crop
_MAX_BYTES = 8 * 2**30

Folder = Path | zipfile.Path
Source = Folder | TarEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One file of an ImageFolder.

    Args:
        path: Where its bytes are, in a folder, a zip file or a tar shard.
        label: Index of its class.
    """

    path: Source
    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Decoded images with labels.

    Args:
        pixels: uint8, shape (N, 3, S, S), RGB.
        labels: int64, shape (N,).
        classes: Name of each class.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def read_images(source: Path, split: str, *, image_size: int) -> ImageSet:
    """Lists and decodes a split.

    Raises:
        DataError: The source or split does not exist, has no images, or holds a file that does not decode.
        MissingDependencyError: Pillow is not installed.
    """
    files, classes = list_images(source, split)
    return decode(files, classes, image_size=image_size)


def list_images(source: Path, split: str) -> tuple[list[ImageFile], tuple[str, ...]]:
    """Returns the files of a split in sorted order, and the class names.

    The split may stand one folder down, as in `cifar10/train/...`. A split of tar files is read as WebDataset shards.

    Raises:
        DataError: The source or split does not exist, or has no images.
    """
    folder = _find_split(_open(Path(source)), split, source)
    if isinstance(folder, Path) and (shards := sorted(folder.glob("*.tar"))):
        entries, labels = list_shards(shards, SUFFIXES)
        if not entries:
            raise DataError(f"no images in the {len(shards)} shards of {folder}; expected {', '.join(SUFFIXES)}")
        return [ImageFile(path=path, label=label) for path, label in zip(entries, labels, strict=True)], class_names(
            folder, labels
        )
    class_folders = sorted((child for child in folder.iterdir() if child.is_dir()), key=lambda child: child.name)
    files = [
        ImageFile(path=path, label=label)
        for label, class_folder in enumerate(class_folders)
        for path in sorted(class_folder.iterdir(), key=lambda path: path.name)
        if Path(path.name).suffix.lower() in SUFFIXES
    ]
    if not files:
        raise DataError(
            f"no images in {source}, split {split!r}; expected {split}/<class>/<image>, one of {', '.join(SUFFIXES)}"
        )
    return files, tuple(child.name for child in class_folders)


def has_split(source: Path, split: str) -> bool:
    """Returns whether a folder or zip file has the split.

    Raises:
        DataError: The source does not exist or is no zip file.
    """
    return bool(_candidates(_open(Path(source)), split))


def decode(
    files: list[ImageFile],
    classes: tuple[str, ...],
    *,
    image_size: int,
    skip: Callable[[DataError], None] | None = None,
) -> ImageSet:
    """Decodes files to square RGB images.

    An image that is not of the right size is resized bicubically, so that its short side is 8/7 of it, and cropped in
    the centre.

    Args:
        files: The files.
        classes: Name of each class.
        image_size: Side S of the images.
        skip: Called for a file that does not decode, which is then left out; without it, that is an error.

    Raises:
        DataError: A file does not decode, or all together would not fit in memory.
        MissingDependencyError: Pillow is not installed.
    """
    require("PIL", extra="train", purpose="reading images")
    needed = len(files) * 3 * image_size**2
    if needed > _MAX_BYTES:
        raise DataError(
            f"{len(files)} images of {image_size} pixels take {needed / 2**30:.0f} GiB decoded; at most "
            f"{_MAX_BYTES // 2**30} are held in memory: use fewer images"
        )
    pixels = np.empty((len(files), 3, image_size, image_size), dtype=np.uint8)
    labels: list[int] = []
    for file in files:
        try:
            pixels[len(labels)] = _decode(file.path, image_size)
        except DataError as err:
            if skip is None:
                raise
            skip(err)
        else:
            labels.append(file.label)
    return ImageSet(pixels=pixels[: len(labels)], labels=np.array(labels, dtype=np.int64), classes=classes)


def open_image(path: Source) -> Image:
    """Reads a file as an RGB image.

    Raises:
        DataError: It does not decode; says which file and why.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(path.read_bytes())) as opened:
            return opened.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as err:
        raise DataError(f"{path} does not decode as an image: {err}; repair or remove it") from err


def split_off(files: list[ImageFile], n: int, rng: np.random.Generator) -> tuple[list[ImageFile], list[ImageFile]]:
    """Divides files at random into n and the rest, with the classes as balanced as n allows; both keep their order."""
    by_class: dict[int, list[int]] = {}
    for i in rng.permutation(len(files)).tolist():
        by_class.setdefault(files[i].label, []).append(i)
    order: list[int] = []
    for rank in range(max(map(len, by_class.values()))):
        order += [indices[rank] for _, indices in sorted(by_class.items()) if rank < len(indices)]
    taken = set(order[:n])
    return (
        [file for i, file in enumerate(files) if i in taken],
        [file for i, file in enumerate(files) if i not in taken],
    )


def batches_across(n: int, size: int = BATCH) -> list[npt.NDArray[np.int64]]:
    """Divides n images into nearly equal batches of at most so many, each taken evenly from all of them.

    Images stand sorted by class. Statistics over batches of one or two classes miss what lies between the classes;
    recalibrated on batches across them, sub-networks are more accurate.

    Args:
        n: Number of images.
        size: The most in a batch.

    Returns:
        Indices of each batch, ascending.
    """
    count = -(-n // size)
    return [np.arange(i, n, count) for i in range(count)]


def write_zip(path: Path, splits: dict[str, list[ImageFile]], classes: tuple[str, ...]) -> None:
    """Packs files, as they are, into a zip file of the same layout; equal input gives equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for split, files in splits.items():
            for i, file in enumerate(files):
                name = f"{split}/{classes[file.label]}/{i:05d}{Path(file.path.name).suffix.lower()}"
                archive.writestr(zipfile.ZipInfo(name), file.path.read_bytes())


def _open(source: Path) -> Folder:
    if source.is_dir():
        return source
    if not source.exists():
        raise DataError(f"no images at {source}: it does not exist; expected a folder or a zip file")
    try:
        return zipfile.Path(source)
    except zipfile.BadZipFile as err:
        raise DataError(f"{source} is neither a folder nor a zip file of images") from err


def _candidates(root: Folder, split: str) -> list[Any]:
    children = [child for child in root.iterdir() if child.is_dir()]
    found = [child for child in children if child.name == split]
    if found or len(children) != 1:
        return found
    return [child for child in children[0].iterdir() if child.is_dir() and child.name == split]


def _find_split(root: Folder, split: str, source: Path) -> Any:
    found = _candidates(root, split)
    if not found:
        raise DataError(f"{source} has no folder {split!r}; expected {split}/<class>/<image>")
    return found[0]


def _decode(path: Source, image_size: int) -> npt.NDArray[np.uint8]:
    from PIL.Image import Resampling

    image = open_image(path)
    if image.size != (image_size, image_size):
        scale = image_size * _SHORT_SIDE_RATIO / min(image.size)
        sides = [max(image_size, round(side * scale)) for side in image.size]
        image = image.resize((sides[0], sides[1]), Resampling.BICUBIC)
        left, top = (sides[0] - image_size) // 2, (sides[1] - image_size) // 2
        image = image.crop((left, top, left + image_size, top + image_size))
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)
