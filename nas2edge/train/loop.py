"""The training loop: epochs of steps, checkpoints, and a folder with all that a search needs.

A run's folder ends up with `supernet.safetensors` (the weights), `images.zip` (calibration and validation images),
`log.jsonl` (one line an epoch) and `checkpoint.safetensors` (weights, momentum and position; a rerun goes on from it).
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from nas2edge._version import __version__
from nas2edge.errors import DataError, DivergedError, InputError
from nas2edge.files import atomic_path, write_text
from nas2edge.space import SearchSpace
from nas2edge.supernet.checkpoint import LoadedSupernet, save_supernet
from nas2edge.supernet.elastic import Supernet
from nas2edge.supernet.evaluate import Share, SupernetEvaluator, make_evaluator
from nas2edge.supernet.images import write_zip
from nas2edge.supernet.weights_file import IMAGES_NAME, WEIGHTS_NAME, supernet_info
from nas2edge.train.data import Batch, BatchSource, Request, TrainFiles
from nas2edge.train.optim import clip_gradients, learning_rate, make_optimizer
from nas2edge.train.processes import Process, average_gradients, total, wait
from nas2edge.train.recipe import Recipe
from nas2edge.train.state import inherit, load_checkpoint, save_checkpoint
from nas2edge.train.step import Predict, StepLosses, Strategy, Teacher, add_gradients, make_strategy

LOG_NAME = "log.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands, for whoever shows it.

    Args:
        epoch: Counted from 0.
        step: Steps done in this epoch.
        steps: Steps of an epoch.
        images_per_second: Over the last step, of all processes together.
        losses: Of the last step.
    """

    epoch: int
    step: int
    steps: int
    images_per_second: float
    losses: StepLosses


def train(
    space: SearchSpace,
    files: TrainFiles,
    source: BatchSource,
    out: Path,
    *,
    recipe: Recipe,
    init: LoadedSupernet | None = None,
    teacher: Teacher | None = None,
    predict: Predict | None = None,
    compile_ends: bool = False,
    record_ends: bool = True,
    process: Process | None = None,
    checkpoint_s: float = 300.0,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Path:
    """Trains a supernet, going on from the run's checkpoint if there is one.

    Args:
        space: The search space; its number of classes is taken from the files.
        files: The files of the run.
        source: Serves the training images.
        out: The run's folder; made if missing.
        recipe: The settings.
        init: A supernet of the space whose weights to start from, instead of random ones.
        teacher: A network to learn from instead of the largest sub-network.
        predict: Predicts accuracies, for recipes that choose the best or worst of some candidates.
        compile_ends: Whether PyTorch compiles the largest and the smallest sub-network.
        record_ends: Whether these two are recorded and replayed as CUDA graphs, where there is a GPU.
        process: This process's part in a run of several.
        checkpoint_s: Seconds between checkpoints; there is one after every epoch besides.
        stop: Asked after every step; if true, a checkpoint is written and the run ends unfinished.
        on_step: Called after every step.
        on_epoch: Called after every epoch with its line of the log; by the first process only.

    Returns:
        The weights file.

    Raises:
        KeyboardInterrupt: `stop` said so.
        InputError: The folder cannot be written, holds a run of other settings, the batch does not divide evenly, or
            `init` is of another space.
        CheckpointError: The folder's checkpoint is corrupt.
        DataError: There are fewer images than a batch has.
        DivergedError: A loss is no longer finite.
    """
    run = _Run(space, files, source, out, recipe, init, process or Process())
    backend = "inductor" if compile_ends else None
    # A normalisation over all processes talks to the others amid the network.
    graphs = record_ends and run.process.device.type == "cuda" and not recipe.sync_batch_norm
    run.strategy = make_strategy(run.model, recipe, teacher=teacher, predict=predict, backend=backend, record=graphs)
    while run.position.epoch < recipe.epochs:
        started = time.monotonic()
        losses = run.train_epoch(on_step, checkpoint_s=checkpoint_s, stop=stop)
        run.save_weights()
        accuracies = run.accuracies()
        seconds = round(time.monotonic() - started, 1)
        record = {"epoch": run.position.epoch, **losses, **accuracies, "seconds": seconds}
        if run.process.first:
            run.log(record)
            on_epoch(record)
        wait(run.process)
    return out / WEIGHTS_NAME


@final
class _Run:
    """A run in memory: weights, optimizer, position."""

    strategy: Strategy

    def __init__(
        self,
        space: SearchSpace,
        files: TrainFiles,
        source: BatchSource,
        out: Path,
        recipe: Recipe,
        init: LoadedSupernet | None,
        process: Process,
    ) -> None:
        self.recipe, self.files, self.source, self.out, self.process = recipe, files, source, out, process
        self.init = None if init is None else init.info.sha256
        if recipe.batch_size % process.world:
            raise InputError(f"batch_size is {recipe.batch_size}; expected a multiple of the {process.world} processes")
        self.steps = len(source) // recipe.batch_size
        if not self.steps:
            raise DataError(f"{len(source)} training images are fewer than one batch of {recipe.batch_size}")
        torch.manual_seed(recipe.seed)
        self.model = Supernet(space, num_classes=len(files.classes))
        if init is not None:
            inherit(self.model, init, classes=files.classes)
        self.model.to(device=process.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.sync_batch_norm and process.world > 1:
            self.model.synchronise(partial(total, process=process))
        self.optimizer = make_optimizer(self.model, recipe)
        self.evaluator: SupernetEvaluator | None = None
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise InputError(f"cannot make the run's folder {out}: {err.strerror}") from err
        self.position = load_checkpoint(
            out,
            model=self.model,
            optimizer=self.optimizer,
            settings=self._settings(),
            defaults={"recipe": asdict(Recipe()), "init": None},
        )
        if self.position.epoch or self.position.step:
            logger.info("going on with %s after epoch %d, step %d", out, self.position.epoch, self.position.step)
        if process.first:
            with atomic_path(out / IMAGES_NAME) as part:
                write_zip(part, {"calibration": files.calibration, "validation": files.validation}, files.classes)
        wait(process)

    def train_epoch(
        self, on_step: Callable[[Progress], None], *, checkpoint_s: float, stop: Callable[[], bool]
    ) -> dict[str, float | None]:
        """Runs one epoch, or what is left of it, and returns the mean losses; None where a step trains no such."""
        position = self.position
        self.model.train()
        saved = recent = time.monotonic()
        for batch in self.source.batches(self._requests()):
            losses = self._step(batch)
            now = time.monotonic()
            speed, recent = self.recipe.batch_size / (now - recent), now
            on_step(
                Progress(
                    epoch=position.epoch,
                    step=position.step,
                    steps=self.steps,
                    images_per_second=speed,
                    losses=losses,
                )
            )
            stopped = stop()
            if stopped or now - saved > checkpoint_s:
                self.save()
                saved = now
            if stopped:
                raise KeyboardInterrupt
        means = (value / self.steps for value in position.total)
        largest, random, smallest = (None if math.isnan(mean) else round(mean, 4) for mean in means)
        position.epoch, position.step, position.total = position.epoch + 1, 0, [0.0, 0.0, 0.0]
        return {"loss_largest": largest, "loss_random": random, "loss_smallest": smallest}

    def save(self) -> None:
        """Writes the checkpoint."""
        if self.process.first:
            save_checkpoint(
                self.out,
                model=self.model,
                optimizer=self.optimizer,
                position=self.position,
                settings=self._settings(),
            )

    def log(self, record: dict[str, Any]) -> None:
        """Appends a line to the log, and writes the checkpoint that goes with it."""
        self.position.records.append(record)
        self.save()
        write_text(self.out / LOG_NAME, "".join(json.dumps(line) + "\n" for line in self.position.records))

    def save_weights(self) -> None:
        """Writes the weights."""
        if not self.process.first:
            return
        trained: dict[str, Any] = {
            "recipe": asdict(self.recipe),
            "epochs_done": self.position.epoch,
            "training_images": len(self.source),
            "nas2edge": __version__,
        }
        if self.init is not None:
            trained["init"] = self.init
        save_supernet(
            self.out / WEIGHTS_NAME,
            self.model,
            classes=self.files.classes,
            preprocess=self.source.preprocess,
            trained=trained,
        )

    def accuracies(self) -> dict[str, float]:
        """Returns the validation accuracies of the smallest and the largest; all processes share the work."""
        wait(self.process)  # for the weights file, which names the images
        if self.evaluator is None:
            loaded = LoadedSupernet(model=self.model, info=supernet_info(str(self.out)))
            sums = partial(total, process=self.process)
            self.evaluator = make_evaluator(
                loaded, share=Share(rank=self.process.rank, world=self.process.world, total=sums)
            )
        space = self.model.space
        ends = dict.fromkeys((space.smallest(), space.largest()))
        found = dict(zip(ends, self.evaluator(list(ends)), strict=True))
        smallest, largest = found[space.smallest()], found[space.largest()]
        return {"accuracy_smallest": round(smallest, 2), "accuracy_largest": round(largest, 2)}

    def _requests(self) -> list[Request]:
        """Returns the batches that are left of the epoch, as this process asks for them."""
        recipe, process, position = self.recipe, self.process, self.position
        order = self.source.order(_seed(recipe.seed, position.epoch))
        batches = torch.split(order, recipe.batch_size)[: self.steps]
        return [
            Request(
                images=batch,
                seed=_seed(recipe.seed, position.epoch, step),
                rank=process.rank,
                world=process.world,
            )
            for step, batch in enumerate(batches)
            if step >= position.step
        ]

    def _step(self, batch: Batch) -> StepLosses:
        recipe, process, position = self.recipe, self.process, self.position
        images = batch[0].to(process.device, memory_format=torch.channels_last, non_blocking=True)
        labels = batch[1].to(process.device, non_blocking=True)
        rate = learning_rate(recipe, step=position.epoch * self.steps + position.step, steps_per_epoch=self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        # A step's randomness depends on nothing but the seed and the position, so there is no state of it to save.
        torch.manual_seed(_seed(recipe.seed, position.epoch, position.step, process.rank))  # dropout, drop-connect
        rng = np.random.default_rng((recipe.seed, position.epoch, position.step))
        losses = add_gradients(self.model, images, labels, strategy=self.strategy, rng=rng, process=process)
        values = (losses.largest, losses.random, losses.smallest)
        if not np.isfinite([losses.largest, losses.smallest]).all():
            raise DivergedError(
                f"the loss is not finite at epoch {position.epoch}, step {position.step} ({losses}); the last "
                "checkpoint is untouched: lower learning_rate_per_256, or lengthen warmup_epochs, in a new run"
            )
        average_gradients(self.model, process)
        clip_gradients(self.model.parameters(), recipe.clip_value)
        self.optimizer.step()
        position.step += 1
        position.total = [total + value for total, value in zip(position.total, values, strict=True)]
        return losses

    def _settings(self) -> dict[str, Any]:
        space = self.model.space.digest
        return {"recipe": asdict(self.recipe), "space": space, "images": len(self.source), "init": self.init}


def _seed(*parts: int) -> int:
    """Returns a seed that depends on all the numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
