"""The embedded supernet: it is there, small, and as accurate as its model card says."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from nas2edge.errors import UnknownNameError
from nas2edge.spaces import load_space
from nas2edge.supernet.checkpoint import load_supernet
from nas2edge.supernet.evaluate import load_images, make_evaluator
from nas2edge.supernet.weights_file import supernet_info

ZOO = Path(str(files("nas2edge.zoo")))


@pytest.fixture(scope="module")
def tiny():
    return load_supernet("builtin:tiny")


def test_it_is_of_the_tiny_space_and_names_its_classes():
    info = supernet_info()

    assert info.space == load_space("tiny")
    assert info.classes[:3] == ("airplane", "automobile", "bird")
    assert info.trained["training_images"] == 45_000


def test_embedded_files_stay_below_12_megabytes():
    assert sum(file.stat().st_size for file in ZOO.rglob("*") if file.is_file()) < 12e6


def test_calibration_and_validation_images_are_balanced_and_apart(tiny):
    calibration, validation = (load_images(tiny, split) for split in ("calibration", "validation"))

    assert np.bincount(calibration.labels).tolist() == [100] * 10
    assert np.bincount(validation.labels).tolist() == [500] * 10
    seen = {image.tobytes() for image in calibration.pixels}
    assert not any(image.tobytes() in seen for image in validation.pixels)


def test_it_is_as_accurate_as_the_model_card_says(tiny):
    """Validation accuracies from nas2edge/zoo/README.md, within half a point for other machines' arithmetic."""
    space = tiny.info.space
    smallest, largest = make_evaluator(tiny)([space.smallest(), space.largest()])

    assert smallest == pytest.approx(82.52, abs=0.5)
    assert largest == pytest.approx(89.14, abs=0.5)


def test_another_name_is_told():
    with pytest.raises(UnknownNameError, match="unknown embedded supernet 'tony'; did you mean 'tiny'"):
        supernet_info("builtin:tony")
