"""nas2edge ablate: what sub-networks should learn from, as box plots of their accuracy."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from nas2edge.cli._common import echo_json, json_option, result_console
from nas2edge.errors import InputError
from nas2edge.optional import require
from nas2edge.report.boxes import draw_boxes
from nas2edge.spaces import load_space
from nas2edge.train.recipe import DEFAULT_RECIPE, load_recipe


@click.command("ablate")
@click.option("--space", default="tiny", show_default=True, help="A named search space, or a .toml file of your own.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder or zip: train/<class>/*, val/...")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The study's folder; a rerun goes on in it."
)
@click.option("--recipe", "recipes", multiple=True, help="none, kd or alphanet; repeatable.")
@click.option("--alpha", "alphas", multiple=True, help="An alpha, or MIN:MAX for the adaptive choice; repeatable.")
@click.option(
    "--beta", "betas", multiple=True, type=float, help="Weight of the teacher against the labels; repeatable."
)
@click.option(
    "--clip", "clips", multiple=True, type=float, help="Greatest importance ratio, adaptive -1:1; repeatable."
)
@click.option("--base", default=DEFAULT_RECIPE, show_default=True, help="The recipe that all settings share.")
@click.option("--epochs", type=int, help="Of every training.  [default: the recipe's]")
@click.option("--images", type=int, help="Training images to use.  [default: all]")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Trainings of every setting.")
@click.option("--regimes", default=5, show_default=True, type=click.IntRange(min=1), help="Of equal width in MACs.")
@click.option("--subnets", default=12, show_default=True, type=click.IntRange(min=1), help="To measure in each regime.")
@click.option("--held-out", default=2000, show_default=True, help="Images that the accuracies are measured on.")
@click.option("--threads", default=None, type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
@json_option
def command(
    space: str,
    data: Path,
    out: Path,
    recipes: tuple[str, ...],
    alphas: tuple[str, ...],
    betas: tuple[float, ...],
    clips: tuple[float, ...],
    base: str,
    epochs: int | None,
    images: int | None,
    seeds: int,
    regimes: int,
    subnets: int,
    held_out: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train a grid of settings alike, and draw sub-network accuracies within regimes of MACs.

    Writes accuracies.csv (one row a sub-network, setting and seed) and accuracies.png (one panel a setting; minimum,
    quartiles, median and maximum).

    Example: nas2edge ablate --data cifar10.zip --out study --alpha 1 --alpha -1:1 --epochs 4 --images 5000
    """
    require("torch", "PIL", "torchvision", extra="train", purpose="training a supernet")
    require("matplotlib", extra="report", purpose="drawing box plots")
    import torch

    from nas2edge.train.ablation import CSV_NAME, make_probe, make_settings, study
    from nas2edge.train.trial import Trials

    if threads:
        torch.set_num_threads(threads)
    settings = make_settings(recipes=recipes, alphas=alphas, betas=betas, clips=clips)
    search_space, recipe = load_space(space), load_recipe(base, {"epochs": epochs})
    console = result_console(as_json=as_json)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise InputError(f"cannot make the study's folder {out}: {err.strerror}") from err
    trials = Trials(search_space, data, recipe, images=images, held_out=held_out)
    rows = study(
        search_space,
        settings,
        probe := make_probe(search_space, regimes=regimes, n=subnets),
        out,
        base=recipe,
        seeds=range(seeds),
        train=trials.train,
        on_done=lambda setting, seed, new: console.print(
            f"{setting.name:16s} seed {seed}  mean {np.mean([row.accuracy for row in new]):.2f} %"
        ),
    )
    names = [setting.name for setting in settings]
    cells = {
        name: [[row.accuracy for row in rows if (row.setting, row.regime) == (name, i)] for i in range(regimes)]
        for name in names
    }
    labels = [f"{low / 1e6:.3g}-{high / 1e6:.3g}" for low, high in zip(probe.edges, probe.edges[1:], strict=False)]
    title = f"{search_space.name}, {trials.images} images, {recipe.epochs} epochs, {seeds} seeds"
    draw_boxes(out / "accuracies.png", cells, regimes=labels, title=title)
    summary = {name: [round(float(np.median(group)), 2) for group in groups] for name, groups in cells.items()}
    if as_json:
        echo_json({"format": "nas2edge.ablation", "version": 1, "regimes": labels, "median_accuracy": summary})
        return
    from rich.table import Table

    table = Table(title=f"median top-1, % ({title})", title_justify="left")
    table.add_column("setting")
    for label in labels:
        table.add_column(f"{label} M", justify="right")
    for name, medians in summary.items():
        table.add_row(name, *(f"{value:.2f}" for value in medians))
    console.print(table)
    console.print(f"wrote {out / CSV_NAME} and {out / 'accuracies.png'}")
