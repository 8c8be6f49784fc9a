"""Box plots of accuracies within regimes of MACs, one panel a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nas2edge.files import atomic_path
from nas2edge.optional import require


def draw_boxes(
    path: Path,
    panels: Mapping[str, Sequence[Sequence[float]]],
    *,
    regimes: Sequence[str],
    title: str,
    columns: int = 3,
) -> None:
    """Draws minimum, quartiles, median and maximum of each regime as a PNG file, all panels on one scale.

    Args:
        path: The file.
        panels: For each setting, the accuracies in percent of each regime.
        regimes: What each regime is called.
        title: Above all.
        columns: Panels side by side.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
        InputError: The folder does not exist or cannot be written.
    """
    require("matplotlib", extra="report", purpose="drawing box plots")
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * lines + 0.8), dpi=110, layout="constrained")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axis, (name, groups) in zip(axes.flat, panels.items(), strict=False):
        boxes = axis.boxplot(
            groups, whis=(0, 100), widths=0.6, patch_artist=True, medianprops={"color": "#b3261e", "linewidth": 1.6}
        )
        for box in boxes["boxes"]:
            box.set(facecolor="#d6e4f0", edgecolor="#33526b")
        axis.set_title(name, fontsize=10)
        axis.set_xticks(range(1, len(regimes) + 1), regimes, fontsize=8)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    for line in axes:
        line[0].set_ylabel("top-1, %")
    figure.supxlabel("MMACs of the sub-network", fontsize=10)
    figure.suptitle(title, fontsize=11)
    with atomic_path(path) as part:
        figure.savefig(part, format="png")
