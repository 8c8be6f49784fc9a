"""What a training run shows: a progress bar, and curves beside its log."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas2edge.cli._common import result_console

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from nas2edge.train.loop import Progress
    from nas2edge.train.recipe import Recipe

LOG_NAME, CURVES_NAME, BOARD_NAME = "log.jsonl", "train.png", "tensorboard"
BOARD_STEPS = 20
"""Steps from one point of TensorBoard's curves to the next."""


def draw_run(folder: Path) -> None:
    """Draws the curves of the run's log, where Matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from nas2edge.report.curves import draw_curves

    records = [json.loads(line) for line in (folder / LOG_NAME).read_text(encoding="utf-8").splitlines()]
    draw_curves(folder / CURVES_NAME, records, title=f"{folder.name}: {len(records)} epochs")


class Bar:
    """A progress bar over all steps, with speed and time left."""

    def __init__(self, recipe: Recipe) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._recipe = recipe
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeRemainingColumn(),
            console=result_console(as_json=True),
        )
        self._task = self._progress.add_task("training", total=None)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def update(self, progress: Progress) -> None:
        self._progress.update(
            self._task,
            total=progress.steps * self._recipe.epochs,
            completed=progress.epoch * progress.steps + progress.step,
            description=f"loss {progress.losses.largest:.3f}  {progress.images_per_second:.0f} images/s",
        )


class Board:
    """Event files for TensorBoard in the run's folder; a rerun goes on in them.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: SummaryWriter | None = None
        self._step = 0

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._open is not None:
            self._open.close()

    def update(self, progress: Progress) -> None:
        """Adds losses and speed, at every twentieth step."""
        self._step = progress.epoch * progress.steps + progress.step
        losses = progress.losses
        values = {"largest": losses.largest, "random": losses.random, "smallest": losses.smallest}
        if self._step % BOARD_STEPS == 0:
            self._add({f"loss/{name}": value for name, value in values.items()})
            self._add({"speed/images_per_second": progress.images_per_second})

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Adds the validation accuracies of an epoch's line of the log, in percent."""
        self._add({f"accuracy/{name}": record[f"accuracy_{name}"] for name in ("largest", "smallest")})

    def _add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, self._step)

    @property
    def _writer(self) -> SummaryWriter:
        if self._open is None:
            from torch.utils.tensorboard import SummaryWriter

            # What an interrupted run wrote beyond its last checkpoint is left out.
            self._open = SummaryWriter(str(self._folder / BOARD_NAME), purge_step=self._step)
        return self._open
