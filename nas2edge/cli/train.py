"""nas2edge train: a supernet from a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nas2edge.cli._common import echo_json, json_option, result_console
from nas2edge.optional import require
from nas2edge.spaces import load_space
from nas2edge.train.recipe import Recipe

if TYPE_CHECKING:
    from nas2edge.train.loop import Progress

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULTS = {name: field.default for name, field in Recipe.__dataclass_fields__.items()}


def _recipe_option(flag: str, kind: type, text: str) -> Callable[[F], F]:
    name = flag.removeprefix("--").replace("-", "_")
    return click.option(flag, name, type=kind, default=_DEFAULTS[name], show_default=True, help=text)


@click.command("train")
@click.option("--space", default="tiny", show_default=True, help="A named search space, or a .toml file of your own.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder or zip: train/<class>/*, val/...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run's folder; a rerun goes on in it.")
@_recipe_option("--epochs", int, "Passes over the training images.")
@_recipe_option("--batch-size", int, "Images a step.")
@_recipe_option("--learning-rate", float, "Peak learning rate.")
@_recipe_option("--warmup-epochs", float, "Epochs of linear warm-up.")
@_recipe_option("--weight-decay", float, "On convolution and linear weights.")
@_recipe_option("--label-smoothing", float, "For the largest sub-network.")
@_recipe_option("--random-subnets", int, "Drawn a step, besides the largest and the smallest.")
@_recipe_option("--dropout", float, "Before the classifier of the largest sub-network.")
@_recipe_option("--drop-connect", float, "In the last two stages of the largest sub-network.")
@_recipe_option("--seed", int, "Of weights, order, augmentation and sub-networks.")
@click.option("--held-out", default=2000, show_default=True, help="Validation images set apart from training.")
@click.option("--calibration", default=1000, show_default=True, help="Training images kept for recalibration.")
@click.option("--threads", default=None, type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
@json_option
def command(
    space: str,
    data: Path,
    out: Path,
    held_out: int,
    calibration: int,
    threads: int | None,
    as_json: bool,
    **recipe: Any,
) -> None:
    """Train a supernet on a folder of images.

    Every step trains the largest sub-network on the labels and teaches the smallest and some random ones by its outputs
    (sandwich rule, in-place distillation). The run's folder holds weights, a few images for search and export, and a
    checkpoint, so that the same command goes on after an interruption.

    Example: nas2edge train --space tiny --data cifar10.zip --out runs/tiny
    """
    require("torch", "PIL", extra="train", purpose="training a supernet")
    import torch

    from nas2edge.train.loop import prepare_data, train

    if threads:
        torch.set_num_threads(threads)
    settings, search_space = Recipe(**recipe), load_space(space)
    console = result_console(as_json=True)
    console.print(f"reading images from {data}")
    images = prepare_data(
        data, image_size=search_space.image_size, held_out=held_out, calibration=calibration, seed=settings.seed
    )
    console.print(
        f"{len(images.training)} training images of {len(images.classes)} classes, {len(images.validation)} held out"
    )
    records: list[dict[str, Any]] = []

    def on_epoch(record: dict[str, Any]) -> None:
        records.append(record)
        console.print(
            f"epoch {record['epoch']:3d}/{settings.epochs}  largest {record['accuracy_largest']:5.2f} %  "
            f"smallest {record['accuracy_smallest']:5.2f} %  (validation)  loss {record['loss_largest']:.3f}  "
            f"{record['seconds']:.0f} s"
        )

    with _Bar(settings) if console.is_terminal else nullcontext() as bar:
        weights = train(
            search_space, images, out, recipe=settings, on_step=bar.update if bar else _ignore, on_epoch=on_epoch
        )
    if as_json:
        echo_json({"format": "nas2edge.training", "version": 1, "weights": str(weights), "epochs": records})
    else:
        click.echo(f"wrote {weights}\nnext: nas2edge search --supernet {out} --device cpu")


class _Bar:
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

    def __enter__(self) -> _Bar:
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


def _ignore(progress: Progress) -> None:
    """Stands in for the bar where there is no terminal."""
