"""nas2edge predictor: a small model of a supernet's accuracies, so that a search need not run it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from nas2edge.cli._common import echo_json, json_option, result_console, threads_option, use_threads
from nas2edge.errors import FormatError
from nas2edge.files import write_text
from nas2edge.optional import require
from nas2edge.space import Codes, SubnetConfig

if TYPE_CHECKING:
    from nas2edge.search.predictor import Predictor

SAMPLES_NAME = "evaluated.jsonl"


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
    "--data", type=click.Path(path_type=Path), help="Images of your own.  [default: those beside the weights]"
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files.  [default: the run's]")
@click.option("--seed", default=0, show_default=True, help="Of the sub-networks drawn and of the fits.")
@threads_option
@json_option
def fit(
    supernet: str, samples: int, data: Path | None, out: Path | None, seed: int, threads: int | None, as_json: bool
) -> None:
    """Evaluate sub-networks, compare kinds of models by cross-validation, and keep the best.

    Writes evaluated.jsonl (a line a sub-network; a rerun goes on from it) and predictor.safetensors.

    Example: nas2edge predictor fit --supernet runs/tiny --samples 500
    """
    require("torch", "PIL", extra="train", purpose="evaluating sub-networks")
    from nas2edge.search.predictor import PREDICTOR_NAME, save_predictor
    from nas2edge.search.predictor_fit import draw_samples, fit_predictor
    from nas2edge.supernet.checkpoint import load_supernet
    from nas2edge.supernet.evaluate import make_evaluator

    loaded = load_supernet(supernet)
    use_threads(threads, loaded.info.space)
    space, folder = loaded.info.space, out or loaded.info.path.parent
    evaluator = make_evaluator(loaded, data=data)
    codes = draw_samples(space, samples, seed=seed)
    log = _Log(folder / SAMPLES_NAME, supernet_sha256=loaded.info.sha256)
    console = result_console(as_json=True)
    console.print(f"{len(codes)} sub-networks to evaluate on {evaluator.tested} images; {len(log.known)} are known")
    accuracies = []
    for i, subnet in enumerate(space.decode(codes)):
        if subnet not in log.known:
            log.add(subnet, evaluator([subnet])[0])
        accuracies.append(log.known[subnet])
        if (i + 1) % 50 == 0:
            console.print(f"{i + 1} of {len(codes)}")
    predictor = fit_predictor(
        space, codes, accuracies, supernet_sha256=loaded.info.sha256, images=evaluator.tested, seed=seed
    )
    save_predictor(folder / PREDICTOR_NAME, predictor)
    _report(predictor, codes, accuracies, folder / PREDICTOR_NAME, as_json=as_json)


class _Log:
    """Evaluated sub-networks on disk, a line each, so that nothing is evaluated twice."""

    def __init__(self, path: Path, *, supernet_sha256: str) -> None:
        self._path, self._sha256 = path, supernet_sha256
        self._lines: list[str] = []
        self.known: dict[SubnetConfig, float] = {}
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                raw = json.loads(line)
                if raw["supernet"] == supernet_sha256:
                    self.known[SubnetConfig.from_dict(raw["subnet"])] = float(raw["accuracy"])
                    self._lines.append(line)
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as err:
                raise FormatError(f"{path} does not read ({err!r}); remove it to evaluate anew") from err

    def add(self, subnet: SubnetConfig, accuracy: float) -> None:
        """Remembers one and writes all."""
        self.known[subnet] = accuracy
        line = {"supernet": self._sha256, "subnet": subnet.to_dict(), "accuracy": round(accuracy, 4)}
        self._lines.append(json.dumps(line, separators=(",", ":")))
        write_text(self._path, "\n".join(self._lines) + "\n")


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
