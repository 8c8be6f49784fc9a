"""Images from folders and zip files: layout, decoding, splitting, and what is said of bad ones."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas2edge.errors import DataError
from nas2edge.supernet.images import batches_across, decode, has_split, list_images, read_images, split_off, write_zip


def make_folder(root: Path, *, per_class: int = 3, size: tuple[int, int] = (8, 8), split: str = "train") -> Path:
    """Writes PNG files of two classes; file i of class c is filled with 10 * c + i."""
    for label, name in enumerate(("cat", "dog")):
        folder = root / split / name
        folder.mkdir(parents=True)
        for i in range(per_class):
            Image.new("RGB", size, (10 * label + i,) * 3).save(folder / f"{i}.png")
    return root


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_images_are_read_in_order_with_their_labels(tmp_path, packed):
    source = make_folder(tmp_path / "data")
    source = zip_of(source, tmp_path / "data.zip") if packed else source

    images = read_images(source, "train", image_size=8)

    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.pixels.shape == (6, 3, 8, 8)
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]


def test_a_split_may_stand_one_folder_down(tmp_path):
    make_folder(tmp_path / "cifar10")

    assert has_split(tmp_path, "train")
    assert len(list_images(tmp_path, "train")[0]) == 6


def test_an_image_of_another_size_is_resized_and_cropped(tmp_path):
    """20 x 10 to 8: the short side becomes round(8 * 8/7) = 9, then the centre 8 x 8 is cut."""
    files, classes = list_images(make_folder(tmp_path, size=(20, 10)), "train")

    assert decode(files, classes, image_size=8).pixels.shape == (6, 3, 8, 8)


def test_split_off_balances_the_classes_and_loses_nothing(tmp_path):
    files, _ = list_images(make_folder(tmp_path, per_class=5), "train")

    taken, rest = split_off(files, 4, np.random.default_rng(0))

    assert sorted(file.label for file in taken) == [0, 0, 1, 1]
    assert {str(file.path) for file in taken} | {str(file.path) for file in rest} == {str(file.path) for file in files}
    assert len(taken) + len(rest) == len(files)


def test_a_written_zip_reads_back_and_is_the_same_each_time(tmp_path):
    files, classes = list_images(make_folder(tmp_path / "data"), "train")

    for name in ("a.zip", "b.zip"):
        write_zip(tmp_path / name, {"calibration": files[:2], "validation": files[2:]}, classes)

    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert read_images(tmp_path / "a.zip", "validation", image_size=8).labels.tolist() == [0, 1, 1, 1]


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(DataError, match="it does not exist"):
        list_images(tmp_path / "nowhere", "train")


def test_a_missing_split_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match="has no folder 'test'; expected test/<class>/<image>"):
        list_images(make_folder(tmp_path), "test")


def test_a_split_without_images_is_refused(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)

    with pytest.raises(DataError, match="no images in"):
        list_images(tmp_path, "train")


def test_a_file_that_is_no_image_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"not a picture")

    with pytest.raises(DataError, match=r"1\.png does not decode as an image"):
        read_images(tmp_path, "train", image_size=8)


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"no zip")

    with pytest.raises(DataError, match="neither a folder nor a zip file"):
        list_images(tmp_path / "data.zip", "train")


def test_batches_are_across_all_images_and_of_nearly_equal_size():
    assert [batch.tolist() for batch in batches_across(7, 3)] == [[0, 3, 6], [1, 4], [2, 5]]
    assert [batch.tolist() for batch in batches_across(6, 3)] == [[0, 2, 4], [1, 3, 5]]
    assert [len(batch) for batch in batches_across(1000)] == [250] * 4
