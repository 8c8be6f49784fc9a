"""Predicted against measured latency as a picture.

>>> png = scatter_png(points, title="cpu, tiny")  # doctest: +SKIP
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from nas2edge.optional import require

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#7f7f7f", "#9467bd", "#ff7f0e")
_LOG_SPAN = 4.0
_BAND = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One network.

    Args:
        measured_ms: What it took.
        predicted_ms: What was predicted.
        sigma_ms: One-sigma error of the prediction.
        group: Decides the colour.
    """

    measured_ms: float
    predicted_ms: float
    sigma_ms: float
    group: str


def scatter_png(points: Sequence[Point], *, title: str, caption: str = "") -> bytes:
    """Returns a PNG: predictions with their error bars above measurements, and how far off each is below.

    Args:
        points: At least one.
        title: First line.
        caption: Second line, such as the statistics.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    require("matplotlib", extra="report", purpose="plotting latencies")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(6.4, 7.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    low = min(min(point.measured_ms, point.predicted_ms) for point in points)
    high = max(max(point.measured_ms, point.predicted_ms) for point in points)
    line = [0.9 * low, 1.1 * high]
    above.plot(line, line, color="black", linewidth=0.8, zorder=1)
    above.fill_between(line, [(1 - _BAND) * x for x in line], [(1 + _BAND) * x for x in line], color="0.9", zorder=0,
                       label=f"within {_BAND:.0%}")  # fmt: skip
    below.axhline(0.0, color="black", linewidth=0.8, zorder=1)
    below.axhspan(-100 * _BAND, 100 * _BAND, color="0.9", zorder=0)
    for group, colour in zip(dict.fromkeys(point.group for point in points), _COLOURS * len(points), strict=False):
        chosen = [point for point in points if point.group == group]
        measured = [point.measured_ms for point in chosen]
        off = [100 * (point.predicted_ms / point.measured_ms - 1) for point in chosen]
        style = {"fmt": "o", "color": colour, "markersize": 3.5, "elinewidth": 0.7}
        above.errorbar(measured, [point.predicted_ms for point in chosen], yerr=[point.sigma_ms for point in chosen],
                       label=f"{group} ({len(chosen)})", **style)  # fmt: skip
        below.errorbar(measured, off, yerr=[100 * point.sigma_ms / point.measured_ms for point in chosen], **style)
    if high > _LOG_SPAN * low:
        above.set_xscale("log")
        above.set_yscale("log")
        for axis in (above.xaxis, above.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "235" else ""))
    above.set(ylabel="predicted (ms), bars: one sigma", xlim=line, ylim=line)
    above.set_title(f"{title}\n{caption}".strip(), fontsize=9)
    above.legend(fontsize=8)
    below.set(xlabel="measured (ms)", ylabel="off (%)")
    found = io.BytesIO()
    figure.savefig(found, format="png")
    return found.getvalue()
