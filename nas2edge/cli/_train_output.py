"""What a training run shows: a progress bar, and curves beside its log."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from nas2edge.cli._common import result_console

if TYPE_CHECKING:
    from nas2edge.train.loop import Progress
    from nas2edge.train.recipe import Recipe

LOG_NAME, CURVES_NAME = "log.jsonl", "train.png"


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
