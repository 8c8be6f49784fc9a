"""Images in tar shards as WebDataset lays them out: `<key>.jpg` and `<key>.cls` side by side, many pairs a shard.

A shard's headers are read once; an image's bytes are then read from where they lie, so that any order can be served and
an interrupted run goes on in the middle of an epoch. A file `classes.txt` beside the shards names the classes, one a
line; without it they are named by their numbers.

>>> entries, labels = list_shards(sorted(Path("imagenet/train").glob("*.tar")))  # doctest: +SKIP
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nas2edge.errors import DataError

LABEL_SUFFIX, CLASSES_NAME = ".cls", "classes.txt"


@dataclass(frozen=True, slots=True)
class TarEntry:
    """A file inside a shard; reads like a path.

    Args:
        shard: The tar file.
        name: Its name there.
        offset: Where its bytes begin.
        size: How many they are.
    """

    shard: Path
    name: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """Returns its bytes.

        Raises:
            OSError: The shard cannot be read, or is shorter than it was.
        """
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) != self.size:
            raise OSError(f"{self.shard} ends before {self.name} does")
        return data

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"


def list_shards(shards: Iterable[Path], suffixes: Sequence[str]) -> tuple[list[TarEntry], list[int]]:
    """Lists the images of shards, in the shards' order, with the number of each one's class.

    Args:
        shards: Tar files, not compressed.
        suffixes: Of images, in lower case.

    Raises:
        DataError: A shard cannot be read, an image has no label, or a label is no number.
    """
    entries: list[TarEntry] = []
    labels: list[int] = []
    for shard in shards:
        images, numbers = _read(shard, suffixes)
        for key, entry in images.items():
            if key not in numbers:
                raise DataError(
                    f"{entry} has no label; expected {key}{LABEL_SUFFIX} beside it, with the class's number"
                )
            entries.append(entry)
            labels.append(numbers[key])
    return entries, labels


def class_names(folder: Path, labels: Sequence[int]) -> tuple[str, ...]:
    """Returns the names in classes.txt, or the numbers of all classes up to the greatest.

    Raises:
        DataError: There are fewer names than classes.
    """
    needed = max(labels, default=-1) + 1
    path = folder / CLASSES_NAME
    if not path.exists():
        return tuple(str(i) for i in range(needed))
    names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if len(names) < needed:
        raise DataError(f"{path} names {len(names)} classes, but an image is of class {needed - 1}, counted from 0")
    return names


def _read(shard: Path, suffixes: Sequence[str]) -> tuple[dict[str, TarEntry], dict[str, int]]:
    images: dict[str, TarEntry] = {}
    numbers: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                # A key ends at the first dot of the file's name.
                folder, name = PurePosixPath(member.name).parent, PurePosixPath(member.name).name
                stem, _, rest = name.partition(".")
                key, suffix = str(folder / stem), f".{rest.lower()}"
                if suffix in suffixes:
                    images[key] = TarEntry(shard, member.name, member.offset_data, member.size)
                elif suffix == LABEL_SUFFIX:
                    file = archive.extractfile(member)
                    numbers[key] = _number(file.read() if file else b"", shard, member.name)
    except (OSError, tarfile.TarError) as err:
        raise DataError(f"{shard} cannot be read as an uncompressed tar file: {err}") from err
    return images, numbers


def _number(text: bytes, shard: Path, name: str) -> int:
    if not text.strip().isdigit():
        raise DataError(f"{shard}/{name} holds {text[:20]!r}; expected the number of a class, counted from 0")
    return int(text)
