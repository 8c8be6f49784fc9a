"""A picture of how run times are distributed, artefact by artefact, on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas2edge.bench.result import Result
from nas2edge.errors import InputError
from nas2edge.files import atomic_path
from nas2edge.optional import require

_BINS = 60
_MARKS = (("p50", "-"), ("p90", "--"), ("p99", ":"))


def plot_distributions(results: Sequence[Result], path: Path, *, title: str) -> None:
    """Draws a histogram of run times for each artefact, with p50, p90 and p99.

    Args:
        results: What was measured.
        path: The .png to write.
        title: Above the picture: the machine.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InputError: The path does not end in .png, or cannot be written.
    """
    if path.suffix != ".png":
        raise InputError(f"--plot {path} does not end in .png; only PNG is drawn")
    require("matplotlib", extra="report", purpose="drawing the distributions")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = [(result, result.timing) for result in results if result.timing is not None]
    low = min(timing.min for _, timing in timed)
    high = max(timing.max for _, timing in timed)
    bins = np.geomspace(0.98 * low, 1.02 * high, _BINS)
    figure = Figure(figsize=(8.0, 1.2 + 1.5 * len(timed)), dpi=120)
    axes = figure.subplots(len(timed), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (result, timing) in zip(axes, timed, strict=True):
        axis.hist(result.sample, bins=bins, color="#4c78a8", alpha=0.75)
        for name, style in _MARKS:
            value = getattr(timing, name)
            axis.axvline(value, color="black", linewidth=1.0, linestyle=style, label=f"{name} {value:.4g} ms")
        axis.set_xscale("log")
        axis.set_title(f"{result.artefact.name}, {result.runtime}", fontsize=9, loc="left")
        axis.set_yticks([])
        axis.legend(fontsize=8, loc="upper right", framealpha=0.9)
        for side in ("top", "left", "right"):
            axis.spines[side].set_visible(False)
    axes[-1].set_xlabel("milliseconds a run, on a logarithmic axis")
    axes[-1].xaxis.set_major_formatter(_plain)
    axes[-1].xaxis.set_minor_formatter(_plain if high < 8.0 * low else "")
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    with atomic_path(path) as part:
        FigureCanvasAgg(figure).print_figure(part, format="png")


def _plain(value: float, position: int | None) -> str:
    return f"{value:g}"
