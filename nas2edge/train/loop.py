"""The training loop: epochs of sandwich steps, a checkpoint after each, and a folder with all that a search needs.

A run's folder ends up with `supernet.safetensors` (the weights), `images.zip` (calibration and validation images),
`log.jsonl` (one line an epoch) and `checkpoint.safetensors` (weights, momentum and position; a rerun goes on from it).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nas2edge._version import __version__
from nas2edge.errors import CheckpointError, DataError, DivergedError, InputError
from nas2edge.files import atomic_path, write_text
from nas2edge.space import SearchSpace
from nas2edge.supernet.checkpoint import LoadedSupernet, load_state, save_supernet
from nas2edge.supernet.elastic import Supernet
from nas2edge.supernet.evaluate import make_evaluator
from nas2edge.supernet.images import ImageFile, ImageSet, decode, has_split, list_images, split_off, write_zip
from nas2edge.supernet.weights_file import IMAGES_NAME, WEIGHTS_NAME, Preprocess, supernet_info
from nas2edge.train.augment import flip_and_crop
from nas2edge.train.optim import learning_rate, make_optimizer
from nas2edge.train.recipe import Recipe
from nas2edge.train.step import StepLosses, Teacher, add_gradients, make_strategy

CHECKPOINT_NAME, LOG_NAME = "checkpoint.safetensors", "log.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands, for whoever shows it.

    Args:
        epoch: Counted from 0.
        step: Steps done in this epoch.
        steps: Steps of an epoch.
        images_per_second: Over the last steps.
        losses: Of the last step.
    """

    epoch: int
    step: int
    steps: int
    images_per_second: float
    losses: StepLosses


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainData:
    """Images of a run, split so that no image serves twice.

    Args:
        training: Decoded training images.
        calibration: Some of the training images, for recalibration.
        validation: Images that are never trained on.
        classes: Class names.
    """

    training: ImageSet
    calibration: list[ImageFile]
    validation: list[ImageFile]
    classes: tuple[str, ...]


def prepare_data(source: Path, *, image_size: int, held_out: int, calibration: int, seed: int) -> TrainData:
    """Reads the split "train" and sets validation and calibration images apart.

    Args:
        source: Folder or zip file with `train/<class>/*`, and perhaps `val/<class>/*`.
        image_size: Side to which images are decoded.
        held_out: Validation images to set apart, from "val" if there is one, else from "train".
        calibration: Training images to keep for recalibration.
        seed: Chooses them.

    Raises:
        DataError: The images are missing, do not decode, or are too few.
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
    return TrainData(
        training=decode(files, classes, image_size=image_size),
        calibration=kept,
        validation=validation,
        classes=classes,
    )


def train(
    space: SearchSpace,
    data: TrainData,
    out: Path,
    *,
    recipe: Recipe,
    teacher: Teacher | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Path:
    """Trains a supernet, going on from the run's checkpoint if there is one.

    Args:
        space: The search space; its number of classes is taken from the data.
        data: The images.
        out: The run's folder; made if missing.
        recipe: The settings.
        teacher: A network to learn from instead of the largest sub-network.
        on_step: Called after every step.
        on_epoch: Called after every epoch with its line of the log.

    Returns:
        The weights file.

    Raises:
        InputError: The folder cannot be written, or holds a run of other settings.
        CheckpointError: The folder's checkpoint is corrupt.
        DivergedError: A loss is no longer finite.
    """
    run = _Run(space, data, out, recipe, teacher)
    while run.epoch < recipe.epochs:
        started = time.monotonic()
        losses = run.train_epoch(on_step)
        accuracies = run.finish_epoch()
        record = {"epoch": run.epoch, **losses, **accuracies}
        record["seconds"] = round(time.monotonic() - started, 1)
        run.log(record)
        on_epoch(record)
    return out / WEIGHTS_NAME


@final
class _Run:
    """The state of a run: weights, optimizer, position."""

    def __init__(self, space: SearchSpace, data: TrainData, out: Path, recipe: Recipe, teacher: Teacher | None) -> None:
        self.recipe, self.data, self.out = recipe, data, out
        torch.manual_seed(recipe.seed)
        self.model = Supernet(space, num_classes=len(data.classes))
        self.model.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.model, recipe)
        self.strategy = make_strategy(self.model, recipe, teacher=teacher)
        self.preprocess = _statistics(data.training)
        self.pixels = torch.from_numpy(data.training.pixels)
        self.labels = torch.from_numpy(data.training.labels)
        self.steps = len(self.labels) // recipe.batch_size
        if not self.steps:
            raise DataError(f"{len(self.labels)} training images are fewer than one batch of {recipe.batch_size}")
        self.epoch = 0
        self.records: list[dict[str, Any]] = []
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise InputError(f"cannot make the run's folder {out}: {err.strerror}") from err
        if (out / CHECKPOINT_NAME).exists():
            self._resume()
        with atomic_path(out / IMAGES_NAME) as part:
            write_zip(part, {"calibration": data.calibration, "validation": data.validation}, data.classes)

    def train_epoch(self, on_step: Callable[[Progress], None]) -> dict[str, float]:
        """Runs one epoch and returns the mean losses."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed * 100_003 + self.epoch)  # drop-connect and dropout
        generator = torch.Generator().manual_seed(recipe.seed * 100_003 + self.epoch)
        rng = np.random.default_rng((recipe.seed, self.epoch))
        order = torch.randperm(len(self.labels), generator=generator)
        self.model.train()
        total = np.zeros(3)
        recent = time.monotonic()
        for step in range(self.steps):
            index = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            losses = self._step(index, step, generator, rng)
            total += (losses.largest, losses.random, losses.smallest)
            now = time.monotonic()
            speed, recent = len(index) / (now - recent), now
            on_step(Progress(epoch=self.epoch, step=step + 1, steps=self.steps, images_per_second=speed, losses=losses))
        largest, random, smallest = (total / self.steps).round(4).tolist()
        return {"loss_largest": largest, "loss_random": random, "loss_smallest": smallest}

    def finish_epoch(self) -> dict[str, float]:
        """Writes weights and checkpoint, and returns the validation accuracies of the smallest and the largest."""
        self.epoch += 1
        self._save_weights()
        evaluator = make_evaluator(LoadedSupernet(model=self.model, info=supernet_info(str(self.out))))
        space = self.model.space
        smallest, largest = evaluator([space.smallest(), space.largest()])
        return {"accuracy_smallest": round(smallest, 2), "accuracy_largest": round(largest, 2)}

    def log(self, record: dict[str, Any]) -> None:
        """Appends a line to the log and writes the checkpoint that goes with it."""
        self.records.append(record)
        state = {f"model.{name}": value.contiguous() for name, value in self.model.state_dict().items()}
        for i, parameter in enumerate(self.model.parameters()):
            buffer = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if buffer is not None:
                state[f"momentum.{i}"] = buffer.contiguous()
        notes = {"epoch": self.epoch, "settings": self._settings(), "records": self.records}
        with atomic_path(self.out / CHECKPOINT_NAME) as part:
            save_file(state, part, metadata={"nas2edge": json.dumps(notes)})
        write_text(self.out / LOG_NAME, "".join(json.dumps(line) + "\n" for line in self.records))

    def _step(self, index: Tensor, step: int, generator: torch.Generator, rng: np.random.Generator) -> StepLosses:
        recipe = self.recipe
        mean = torch.tensor(self.preprocess.mean).view(3, 1, 1)
        std = torch.tensor(self.preprocess.std).view(3, 1, 1)
        images = (self.pixels[index].float() / 255.0 - mean) / std
        images = flip_and_crop(images, padding=recipe.crop_padding, generator=generator)
        images = images.contiguous(memory_format=torch.channels_last)
        rate = learning_rate(recipe, step=self.epoch * self.steps + step, steps_per_epoch=self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        losses = add_gradients(self.model, images, self.labels[index], strategy=self.strategy, rng=rng)
        if not np.isfinite([losses.largest, losses.smallest]).all():
            raise DivergedError(
                f"the loss is not finite at epoch {self.epoch}, step {step} ({losses}); the last checkpoint is "
                "untouched: lower learning_rate_per_256, or lengthen warmup_epochs, in a new run"
            )
        torch.nn.utils.clip_grad_value_(self.model.parameters(), recipe.clip_value)
        self.optimizer.step()
        return losses

    def _settings(self) -> dict[str, Any]:
        return {"recipe": asdict(self.recipe), "space": self.model.space.digest, "images": len(self.labels)}

    def _save_weights(self) -> None:
        trained = {
            "recipe": asdict(self.recipe),
            "epochs_done": self.epoch,
            "training_images": len(self.labels),
            "nas2edge": __version__,
        }
        save_supernet(
            self.out / WEIGHTS_NAME,
            self.model,
            classes=self.data.classes,
            preprocess=self.preprocess,
            trained=trained,
        )

    def _resume(self) -> None:
        path = self.out / CHECKPOINT_NAME
        try:
            with safe_open(path, framework="pt") as file:
                notes = json.loads((file.metadata() or {})["nas2edge"])
            state = load_file(path)
        except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as err:
            raise CheckpointError(f"{path} is not a readable checkpoint ({err}); remove it to start anew") from err
        if notes["settings"] != json.loads(json.dumps(self._settings())):
            raise InputError(
                f"{self.out} holds a run of other settings ({notes['settings']}); use the same settings to go on with "
                "it, or another --out"
            )
        weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        load_state(self.model, weights, where=str(path))
        for i, parameter in enumerate(self.model.parameters()):
            if f"momentum.{i}" in state:
                buffer = torch.empty_like(parameter).copy_(state[f"momentum.{i}"])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.epoch, self.records = notes["epoch"], notes["records"]
        logger.info("going on with %s after epoch %d", self.out, self.epoch)


def _statistics(images: ImageSet) -> Preprocess:
    """Returns the mean and standard deviation of each channel, from at most 10,000 images."""
    sample = images.pixels[:: max(1, len(images) // 10_000)].astype(np.float32) / 255.0
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3))
    r, g, b = (round(float(value), 4) for value in mean)
    sr, sg, sb = (round(max(float(value), 1e-3), 4) for value in std)
    return Preprocess(image_size=images.pixels.shape[-1], mean=(r, g, b), std=(sr, sg, sb))
