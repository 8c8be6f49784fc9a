"""Which MACs training draws: python benchmarks/macs_drawn.py [--space NAME] [--draws N] [--out FILE.png]

Uniform choices hardly ever give a small network; drawing MACs first, then a network of those MACs, reaches every one
that the space has (`nas2edge/budget.py`). Prints the share of draws below a tenth of the way up, and draws histograms.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nas2edge import AdditiveMetric, load_space
from nas2edge.costs import count_macs
from nas2edge.space import SubnetConfig
from nas2edge.train.recipe import Recipe
from nas2edge.train.sampling import make_sampler

RECIPES = {
    "uniform choices (sandwich rule)": Recipe(random_subnets=1),
    'MACs by their share (prior = "share")': Recipe(random_subnets=1, choose="best", candidates=1),
    'all MACs alike (prior = "even")': Recipe(random_subnets=1, choose="best", candidates=1, prior="even"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="attentivenas")
    parser.add_argument("--draws", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path("docs/images/macs_drawn.png"))
    options = parser.parse_args()
    space = load_space(options.space)
    metric = AdditiveMetric(space, count_macs)
    least, greatest = metric.minimum().value / 1e6, metric.maximum().value / 1e6
    figure = Figure(figsize=(9.0, 2.8), dpi=110, layout="constrained")
    for axis, (name, recipe) in zip(figure.subplots(1, len(RECIPES), sharex=True), RECIPES.items(), strict=True):
        sampler, rng = make_sampler(space, recipe), np.random.default_rng(0)
        drawn = [subnet for _ in range(options.draws) for subnet in sampler.draw(rng, _no_preference)]
        macs = metric(space.encode(drawn)) / 1e6
        low = float((macs < least + 0.1 * (greatest - least)).mean())
        print(f"{name}: {low:.2%} in the lowest tenth; {macs.min():.0f} to {macs.max():.0f} MMACs")
        axis.hist(macs, bins=40, range=(least, greatest), color="#33526b")
        axis.set_title(name, fontsize=9)
        axis.set_yticks([])
    ends = f"its ends are {least:.0f} and {greatest:.0f}"
    figure.supxlabel(f"MMACs of {options.draws:,} networks drawn from {space.name}; {ends}", fontsize=9)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out)


def _no_preference(subnet: SubnetConfig) -> float:
    return 0.0


if __name__ == "__main__":
    main()
