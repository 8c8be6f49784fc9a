"""nas2edge train: a supernet from a folder of images."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas2edge.cli._common import Quantity, echo_json, json_option, result_console
from nas2edge.cli._train_output import Bar, Board, draw_run
from nas2edge.errors import InputError
from nas2edge.optional import require
from nas2edge.space import SearchSpace, SubnetConfig
from nas2edge.spaces import load_space
from nas2edge.subnet_file import find_subnet
from nas2edge.train.recipe import DEFAULT_RECIPE, Recipe, load_recipe, recipe_names
from nas2edge.units import parse_duration_s

if TYPE_CHECKING:
    from nas2edge.train.loop import Progress


@click.command("train")
@click.option("--space", default="tiny", show_default=True, help="A named search space, or a .toml file of your own.")
@click.option(
    "--subnet", help="Train this sub-network of it alone, from scratch: smallest, largest, a published one, or a .json."
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder or zip: train/<class>/*, val/...")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder; a rerun goes on in it.")
@click.option(
    "--recipe",
    "recipe_name",
    default=DEFAULT_RECIPE,
    show_default=True,
    help=f"{', '.join(recipe_names())}, or a .toml file of your own.",
)
@click.option("--show-recipe", is_flag=True, help="Print all that the recipe sets, and stop.")
@click.option("--epochs", type=int, help="Passes over the training images.  [default: the recipe's]")
@click.option("--batch-size", type=int, help="Images a step.  [default: the recipe's]")
@click.option("--seed", type=int, help="Of weights, order, augmentation and sub-networks.  [default: the recipe's]")
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any other field of the recipe; repeatable."
)
@click.option(
    "--init", help="Start from the weights of another run of this space, instead of random ones: its folder or file."
)
@click.option(
    "--teacher", help="A network to learn from: .onnx, .pt, a run, or module:callable.  [default: the largest]"
)
@click.option(
    "--predictor",
    type=click.Path(path_type=Path),
    help="Scores candidates, where the recipe chooses among some.  [default: their loss on the batch]",
)
@click.option(
    "--compile",
    "compile_ends",
    is_flag=True,
    help="Let PyTorch compile the largest and the smallest sub-network first.",
)
@click.option(
    "--record/--no-record",
    "record_ends",
    default=True,
    show_default=True,
    help="Replay these two as CUDA graphs, where there is a GPU.",
)
@click.option("--tensorboard", is_flag=True, help="Write curves for TensorBoard into the run's folder besides.")
@click.option("--held-out", default=2000, show_default=True, help="Validation images set apart from training.")
@click.option("--calibration", default=1000, show_default=True, help="Training images kept for recalibration.")
@click.option("--threads", default=None, type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
@click.option(
    "--workers", default=2, show_default=True, help="Processes that read files, where the recipe asks for it."
)
@click.option(
    "--checkpoint-every",
    type=Quantity("DURATION", parse_duration_s),
    default="5min",
    show_default=True,
    help="Time between checkpoints; there is one after every epoch besides.",
)
@json_option
def command(
    space: str,
    subnet: str | None,
    data: Path | None,
    out: Path | None,
    recipe_name: str,
    show_recipe: bool,
    epochs: int | None,
    batch_size: int | None,
    seed: int | None,
    settings: tuple[str, ...],
    init: str | None,
    teacher: str | None,
    predictor: Path | None,
    compile_ends: bool,
    record_ends: bool,
    tensorboard: bool,
    held_out: int,
    calibration: int,
    threads: int | None,
    workers: int,
    checkpoint_every: float,
    as_json: bool,
) -> None:
    """Train a supernet on a folder of images.

    Every step trains the largest sub-network on the labels, and the smallest and some others on what the recipe says:
    the labels, or the largest one's outputs. The run's folder holds weights, a few images for search and export, and a
    checkpoint, so that the same command goes on after an interruption; Ctrl-C and SIGTERM save one and end with 130.

    Example: nas2edge train --space tiny --data cifar10.zip --out runs/tiny
    """
    overrides = {"epochs": epochs, "batch_size": batch_size, "seed": seed, **dict(map(_setting, settings))}
    recipe = load_recipe(recipe_name, overrides)
    if show_recipe:
        _show(recipe, recipe_name, as_json=as_json)
        return
    if data is None or out is None:
        raise click.UsageError("--data and --out are needed: where the images are, and the folder of the run")
    for name, given in {"--init": init, "--teacher": teacher, "--predictor": predictor}.items():
        if subnet is not None and given is not None:
            raise click.UsageError(f"--subnet trains from scratch and on the labels alone; leave {name} out")
    require("torch", "PIL", extra="train", purpose="training a supernet")
    if tensorboard:
        require("tensorboard", extra="tensorboard", purpose="writing curves for TensorBoard")
    import torch

    from nas2edge.supernet.checkpoint import load_supernet
    from nas2edge.train.data import list_files, make_source
    from nas2edge.train.loop import train
    from nas2edge.train.processes import join, leave
    from nas2edge.train.teachers import load_teacher

    if threads:
        torch.set_num_threads(threads)
    search_space, process = load_space(space), join()
    if subnet is not None:
        search_space = search_space.only(find_subnet(subnet, search_space).subnet)
    start = load_supernet(init) if init else None
    console = result_console(as_json=True)
    console.quiet = not process.first
    console.print(f"reading images from {data}")
    files = list_files(data, held_out=held_out, calibration=calibration, seed=recipe.seed)
    source = make_source(files, recipe, image_size=search_space.image_size, workers=workers, device=process.device)
    console.print(
        f"{len(files.training)} training images of {len(files.classes)} classes, {len(files.validation)} held out"
    )
    guide = load_teacher(teacher, num_classes=len(files.classes), device=process.device) if teacher else None
    predict = _predict(predictor, replace(search_space, num_classes=len(files.classes)), recipe) if predictor else None
    records: list[dict[str, Any]] = []
    bar = Bar(recipe) if console.is_terminal and process.first else None
    board = Board(out) if tensorboard and process.first else None
    watchers = [watcher for watcher in (bar, board) if watcher is not None]

    def on_step(progress: Progress) -> None:
        for watcher in watchers:
            watcher.update(progress)

    def on_epoch(record: dict[str, Any]) -> None:
        records.append(record)
        draw_run(out)
        if board is not None:
            board.epoch(record)
        console.print(
            f"epoch {record['epoch']:3d}/{recipe.epochs}  largest {record['accuracy_largest']:5.2f} %  "
            f"smallest {record['accuracy_smallest']:5.2f} %  (validation)  loss {record['loss_largest']:.3f}  "
            f"{record['seconds']:.0f} s"
        )

    with ExitStack() as stack:
        for watcher in watchers:
            stack.enter_context(watcher)
        weights = train(
            search_space,
            files,
            source,
            out,
            recipe=recipe,
            init=start,
            teacher=guide,
            predict=predict,
            compile_ends=compile_ends,
            record_ends=record_ends,
            process=process,
            checkpoint_s=checkpoint_every,
            stop=_stop_on_signals(),
            on_step=on_step,
            on_epoch=on_epoch,
        )
    leave()
    if not process.first:
        return
    if as_json:
        echo_json({"format": "nas2edge.training", "version": 1, "weights": str(weights), "epochs": records})
    else:
        then = f"search --supernet {out} --device cpu" if subnet is None else f"evaluate --supernet {out}"
        click.echo(f"wrote {weights}\nnext: nas2edge {then}")


def _predict(path: Path, space: SearchSpace, recipe: Recipe) -> Callable[[SubnetConfig], float]:
    from nas2edge.search.predictor import load_predictor

    if recipe.choose == "random":
        raise InputError("--predictor scores candidates, but the recipe draws at random; choose best or worst ones")
    accuracies = load_predictor(path, space=space, supernet_sha256=None)
    return lambda subnet: float(accuracies(space.encode([subnet]))[0])


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text!r} has no '='; expected FIELD=VALUE, for example --set beta=0.5")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _show(recipe: Recipe, name: str, *, as_json: bool) -> None:
    if as_json:
        echo_json({"format": "nas2edge.recipe", "version": 1, **asdict(recipe)})
        return
    click.echo(f"# {name}")
    for field, value in asdict(recipe).items():
        click.echo(f"{field} = {json.dumps(value)}")


def _stop_on_signals() -> Callable[[], bool]:
    """Returns whether the user or the system asked to stop; a second request ends the process at once."""
    asked = []

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        click.echo("saving a checkpoint; the same command goes on from it", err=True)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, ask)
        signal.signal(signal.SIGTERM, ask)
    return lambda: bool(asked)
