"""Short trainings for studies that need many: the same images for all, and nothing left on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import final

import numpy as np

from nas2edge.space import SearchSpace
from nas2edge.supernet.checkpoint import load_supernet
from nas2edge.supernet.evaluate import make_evaluator
from nas2edge.supernet.images import split_off
from nas2edge.train.ablation import Accuracies, Setting
from nas2edge.train.data import TrainFiles, list_files, make_source
from nas2edge.train.loop import train
from nas2edge.train.recipe import Recipe

_CALIBRATION = 1000


@final
class Trials:
    """Trains supernets by different recipes on the same images.

    Args:
        space: The search space.
        data: Folder or zip file of images.
        base: Gives the augmentation, which all trials share.
        images: Training images to use, None for all.
        held_out: Validation images.

    Attributes:
        images: Training images used.

    Raises:
        DataError: The images are missing, do not decode, or are too few.
    """

    def __init__(self, space: SearchSpace, data: Path, base: Recipe, *, images: int | None, held_out: int) -> None:
        files = list_files(data, held_out=held_out, calibration=_CALIBRATION, seed=0)
        if images is not None and images < len(files.training):
            training, _ = split_off(files.training, images, np.random.default_rng(0))
            calibration, _ = split_off(training, _CALIBRATION, np.random.default_rng(0))
            files = TrainFiles(
                training=training, calibration=calibration, validation=files.validation, classes=files.classes
            )
        self.images = len(files.training)
        self._space, self._files = space, files
        self._source = make_source(files, base, image_size=space.image_size)

    def train(self, setting: Setting, recipe: Recipe) -> Accuracies:
        """Trains by a recipe, and returns how to measure accuracies on the validation images."""
        with tempfile.TemporaryDirectory(prefix="nas2edge-trial-") as folder:
            out = Path(folder)
            train(self._space, self._files, self._source, out, recipe=recipe)
            return make_evaluator(load_supernet(str(out)))
