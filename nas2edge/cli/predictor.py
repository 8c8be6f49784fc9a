"""nas2edge predictor: a small model of a supernet's accuracies, so that a search need not run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from nas2edge.cli._common import (
    echo_json,
    json_option,
    open_evaluator,
    processes_option,
    result_console,
    threads_option,
)
from nas2edge.cli._progress import count_progress
from nas2edge.errors import InputError
from nas2edge.optional import require
from nas2edge.space import Codes, SearchSpace, SubnetConfig

if TYPE_CHECKING:
    from rich.console import Console

    from nas2edge.latency.table import LatencyTable
    from nas2edge.search.cache import CachedEvaluator
    from nas2edge.search.predictor import Predictor

MIN_DRAWN = 50  # as many as a fit needs


@click.group("predictor")
def command() -> None:
    """Fit a small model that predicts the accuracies of a supernet's sub-networks.

    Example: nas2edge predictor fit --supernet runs/tiny --samples 500
    """


@command.command("fit")
@click.option("--supernet", required=True, help="A run's folder; the predictor is written into it.")
@click.option(
    "--samples", default=500, show_default=True, type=click.IntRange(min=50), help="Sub-networks to evaluate."
)
@click.option(
    "--refine",
    type=click.IntRange(min=0),
    help="How many of the samples to draw near the front, once the others are known.  [default: a fifth]",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME",
    help="Refine near the front of this latency table too, beside those of MACs and parameters; repeatable.",
)
@click.option("--tables", type=click.Path(path_type=Path), help="Folder of latency tables of your own.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Images of your own.  [default: those beside the weights]"
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files.  [default: the run's]")
@click.option("--seed", default=0, show_default=True, help="Of the sub-networks drawn and of the fits.")
@processes_option
@threads_option
@json_option
def fit(
    supernet: str,
    samples: int,
    refine: int | None,
    devices: tuple[str, ...],
    tables: Path | None,
    data: Path | None,
    out: Path | None,
    seed: int,
    processes: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Evaluate sub-networks, compare kinds of models by cross-validation, and keep the best.

    Writes evaluated.jsonl (a line a sub-network; a rerun goes on from it) and predictor.safetensors.

    Example: nas2edge predictor fit --supernet runs/tiny --samples 500 --device jetson
    """
    from nas2edge.latency.registry import load_table

    near = min(samples // 5, samples - MIN_DRAWN) if refine is None else refine
    if near > samples - MIN_DRAWN:
        raise InputError(
            f"--refine {near} of --samples {samples} leaves {samples - near} drawn over the space; expected at least "
            f"{MIN_DRAWN}"
        )
    latency = {(table := load_table(name, tables=tables)).device.name: table for name in devices}
    require("torch", "PIL", extra="train", purpose="evaluating sub-networks")
    from nas2edge.search.cache import EVALUATED_NAME, CachedEvaluator, digest_of_images
    from nas2edge.search.predictor import PREDICTOR_NAME, save_predictor
    from nas2edge.search.predictor_fit import draw_samples, fit_predictor
    from nas2edge.supernet.checkpoint import load_supernet

    loaded = load_supernet(supernet)
    info = loaded.info
    folder = out or info.path.parent
    evaluator = open_evaluator(loaded, processes=processes, threads=threads, data=data)
    digest = digest_of_images(data, info.images)
    cached = CachedEvaluator(evaluator.each, folder / EVALUATED_NAME, supernet_sha256=info.sha256, data=digest)
    console = result_console(as_json=True)
    drawn = info.space.decode(draw_samples(info.space, samples - near, seed=seed))
    console.print(f"{samples} sub-networks to evaluate on {evaluator.tested} images; {len(cached.known)} are known")
    with count_progress(samples, "evaluating accuracies") as advance:
        cached.watch(advance)
        known = dict(zip(drawn, cached(drawn), strict=True))
    about: dict[str, Any] = {"supernet_sha256": info.sha256, "images": evaluator.tested, "data": digest, "seed": seed}
    if near:
        known = _refined(info.space, known, cached, latency, near, about, console)
    codes, accuracies = info.space.encode(known), list(known.values())
    predictor = fit_predictor(info.space, codes, accuracies, **about)
    save_predictor(folder / PREDICTOR_NAME, predictor)
    _report(predictor, codes, accuracies, folder / PREDICTOR_NAME, as_json=as_json)


def _refined(
    space: SearchSpace,
    known: Mapping[SubnetConfig, float],
    evaluate: CachedEvaluator,
    latency: Mapping[str, LatencyTable],
    budget: int,
    about: Mapping[str, Any],
    console: Console,
) -> dict[SubnetConfig, float]:
    """Evaluates sub-networks near the front, and says how the front moved."""
    from nas2edge.search.predictor_fit import fit_predictor, refit_predictor
    from nas2edge.search.process_fit import fit_process
    from nas2edge.search.refine import refine

    first = fit_predictor(space, space.encode(known), list(known.values()), **about, kinds={"gp": fit_process})

    def refit(accuracies: Mapping[SubnetConfig, float]) -> Predictor:
        return refit_predictor(first, space.encode(accuracies), list(accuracies.values()))

    refined = refine(space, known, evaluate=evaluate, fit=refit, latency=latency, budget=budget, seed=about["seed"])
    path = ", ".join(f"{value:.3f}" for value in refined.moved)
    end = "stands still" if refined.still else "still moved when all samples were spent"
    console.print(
        f"{len(refined.known) - len(known)} sub-networks near the front; by rounds, it moved by {path} points: it {end}"
    )
    return dict(refined.known)


def _report(predictor: Predictor, codes: Codes, accuracies: Sequence[float], path: Path, *, as_json: bool) -> None:
    scores = {kind: {"rmse": s.rmse, "kendall_tau": s.kendall_tau} for kind, s in predictor.scores.items()}
    if as_json:
        value: dict[str, Any] = {
            "format": "nas2edge.predictor_fit",
            "version": 1,
            "predictor": str(path),
            "kind": predictor.kind,
            "samples": len(codes),
            "scores": scores,
        }
        echo_json(value)
        return
    from rich.table import Table

    table = Table(title=f"cross-validation on {len(codes)} sub-networks", title_justify="left")
    table.add_column("model")
    for heading in ("RMSE, points", "Kendall tau"):
        table.add_column(heading, justify="right")
    for kind, score in scores.items():
        mark = " *" if kind == predictor.kind else ""
        table.add_row(kind + mark, f"{score['rmse']:.3f}", f"{score['kendall_tau']:.3f}")
    console = result_console(as_json=False)
    console.print(table)
    low, high = np.min(accuracies), np.max(accuracies)
    console.print(f"accuracies from {low:.2f} to {high:.2f} %; wrote {path}")
