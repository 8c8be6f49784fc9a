"""Images in tar shards, as WebDataset lays them out."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas2edge.errors import DataError
from nas2edge.supernet.images import list_images, read_images
from nas2edge.supernet.shards import TarEntry
from nas2edge.train.data import OPEN_SHARDS, FileSource, Request, list_files


def jpeg(level: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_shard(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def folder(tmp_path) -> Path:
    """20 shards of 3 images; image i is of class i % 2, and as bright as its number."""
    for shard in range(20):
        files: dict[str, bytes] = {}
        for i in range(3 * shard, 3 * shard + 3):
            files |= {f"n/{i:03d}.png": jpeg(i), f"n/{i:03d}.cls": str(i % 2).encode(), f"n/{i:03d}.json": b"{}"}
        write_shard(tmp_path / "train" / f"train-{shard:06d}.tar", files)
    return tmp_path


def test_shards_are_listed_and_read_in_order(folder):
    images = read_images(folder, "train", image_size=32)
    assert images.pixels[:, 0, 0, 0].tolist() == list(range(60))
    assert images.labels.tolist() == [i % 2 for i in range(60)]
    assert images.classes == ("0", "1")


def test_classes_are_named_by_the_file_beside_the_shards(folder):
    (folder / "train" / "classes.txt").write_text("cat\ndog\n")
    assert list_images(folder, "train")[1] == ("cat", "dog")
    (folder / "train" / "classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match="names 1 classes, but an image is of class 1"):
        list_images(folder, "train")


def test_an_epoch_serves_every_image_once_from_few_shards_at_a_time(folder):
    files = list_files(folder, held_out=0, calibration=4, seed=0)
    source = FileSource(files, image_size=32, auto_augment=False, workers=0)

    order = source.order(5)

    assert sorted(order.tolist()) == list(range(60))
    first = {files.training[i].path.shard for i in order[: 3 * OPEN_SHARDS].tolist()}
    assert len(first) == OPEN_SHARDS
    assert torch.equal(order, source.order(5)) and not torch.equal(order, source.order(6))
    ((images, labels),) = source.batches([Request(images=order[:4], seed=0)])
    assert images.shape == (4, 3, 32, 32)
    assert labels.tolist() == [i % 2 for i in order[:4].tolist()]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.png": jpeg(1)}, "a.png has no label; expected a.cls beside it"),
        ({"a.png": jpeg(1), "a.cls": b"cat"}, "a.cls holds b'cat'; expected the number of a class"),
        ({"a.txt": b"1"}, "no images in the 1 shards"),
    ],
)
def test_what_a_shard_lacks_is_said(tmp_path, files, said):
    write_shard(tmp_path / "train" / "0.tar", files)
    with pytest.raises(DataError, match=said):
        list_images(tmp_path, "train")


def test_a_damaged_shard_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(DataError, match="0.tar cannot be read as an uncompressed tar file"):
        list_images(tmp_path, "train")


def test_a_shard_that_was_cut_off_since_is_noticed(folder):
    shard = folder / "train" / "train-000000.tar"
    entry = list_images(folder, "train")[0][0].path
    assert isinstance(entry, TarEntry)
    shard.write_bytes(shard.read_bytes()[: entry.offset + 5])
    with pytest.raises(OSError, match="ends before n/000.png does"):
        entry.read_bytes()
