"""Curves of a training run: accuracies and losses by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas2edge.files import atomic_path
from nas2edge.optional import require

_ALONE = "sub-network"
_COLOURS = {"largest": "#33526b", "random": "#7a8b99", "smallest": "#b3261e", _ALONE: "#33526b"}


def draw_curves(path: Path, records: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Draws accuracies of the smallest and the largest sub-network, and the losses, as a PNG file.

    A sub-network that is trained alone is both, and one curve.

    Args:
        path: The file.
        records: For each epoch, "epoch", "accuracy_largest" and "accuracy_smallest" in percent, and "loss_largest",
            "loss_random" and "loss_smallest"; a value that is missing or not a number is left out.
        title: Above both.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
        InputError: The folder does not exist or cannot be written.
    """
    require("matplotlib", extra="report", purpose="drawing curves")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.0, 3.8), dpi=110, layout="constrained")
    for axis, kind, label in zip(
        figure.subplots(1, 2), ("accuracy", "loss"), ("top-1 on validation images, %", "training loss"), strict=True
    ):
        for which, points in curves_of(records, kind).items():
            axis.plot(*zip(*points, strict=True), color=_COLOURS[which], marker="o", markersize=3, label=which)
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    with atomic_path(path) as part:
        figure.savefig(part, format="png")


def curves_of(records: Sequence[Mapping[str, Any]], kind: str) -> dict[str, list[tuple[int, float]]]:
    """Returns the points (epoch, value) of every curve that has any.

    Args:
        records: As for `draw_curves`.
        kind: "accuracy" or "loss".
    """
    curves = {}
    for which in ("largest", "random", "smallest"):
        points = [(record["epoch"], record.get(f"{kind}_{which}")) for record in records]
        known = [(epoch, value) for epoch, value in points if isinstance(value, int | float) and value == value]
        if known:
            curves[which] = known
    if list(curves) == ["largest", "smallest"] and curves["largest"] == curves["smallest"]:
        return {_ALONE: curves["largest"]}
    return curves
