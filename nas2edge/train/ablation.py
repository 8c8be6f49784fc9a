"""Ablations of what sub-networks learn from: a grid of settings, trained alike, compared by regimes of MACs.

The figures that it makes are those of the AlphaNet paper's appendix (figures 9 and 10): box plots of sub-network
accuracy within each regime of FLOPs, one panel a setting. "Beta" has two meanings there, and both are settings here:
the weight of the teacher against the labels, and the factor at which importance ratios are clipped.

A study is a folder: `accuracies.csv` has one row a sub-network, setting and seed; a rerun goes on after the last
complete setting and seed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from nas2edge.additive import AdditiveMetric
from nas2edge.budget import BudgetSampler
from nas2edge.costs import count_macs
from nas2edge.errors import FormatError, InputError
from nas2edge.files import write_text
from nas2edge.space import Codes, SearchSpace, SubnetConfig
from nas2edge.train.recipe import Recipe

CSV_NAME = "accuracies.csv"

Accuracies = Callable[[Sequence[SubnetConfig]], Sequence[float]]
"""Maps sub-networks to top-1 in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One panel: a name, and what it changes in the recipe that all share.

    Args:
        name: What the panel is called.
        changes: Fields of `Recipe`.
    """

    name: str
    changes: Mapping[str, Any]

    def recipe(self, base: Recipe, *, seed: int) -> Recipe:
        """Returns the recipe of this setting and seed."""
        return replace(base, seed=seed, **self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sub-network's accuracy.

    Args:
        setting: Name of the setting.
        seed: Of the training.
        regime: Number of the regime of MACs, from 0.
        macs: Of the sub-network.
        accuracy: Top-1 in percent.
    """

    setting: str
    seed: int
    regime: int
    macs: int
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The sub-networks that every setting is judged by: equally many, drawn uniformly, of each regime.

    Args:
        codes: Shape (regimes * n, genes).
        regimes: The regime of each.
        macs: The MACs of each.
        edges: Borders of the regimes, in MACs.
    """

    codes: Codes
    regimes: list[int]
    macs: list[int]
    edges: list[float]


def make_settings(
    *, recipes: Iterable[str] = (), alphas: Iterable[str] = (), betas: Iterable[float] = (), clips: Iterable[float] = ()
) -> list[Setting]:
    """Returns the settings of a grid.

    Args:
        recipes: "none", "kd" or "alphanet", by what they distil with.
        alphas: An alpha, or "MIN:MAX" for the adaptive choice between two.
        betas: Weights of the teacher against the labels.
        clips: Greatest importance ratios of the adaptive choice between -1 and 1.

    Raises:
        InputError: There is no setting, an alpha does not read, or a recipe is none of the three.
    """
    by_recipe: dict[str, dict[str, Any]] = {
        "none": {"distillation": "none"},
        "kd": {"distillation": "kd", "beta": 1.0},
        "alphanet": {"distillation": "adaptive-alpha"},
    }
    settings = []
    for name in recipes:
        if name not in by_recipe:
            raise InputError(f"recipe {name!r} is no baseline of an ablation; expected one of {', '.join(by_recipe)}")
        settings.append(Setting(name=name, changes=by_recipe[name]))
    settings += [_alpha_setting(text) for text in alphas]
    settings += [Setting(name=f"beta {beta:g}", changes={"distillation": "kd", "beta": beta}) for beta in betas]
    settings += [
        Setting(name=f"clip {clip:g}", changes={"distillation": "adaptive-alpha", "clip_ratio": clip}) for clip in clips
    ]
    if not settings:
        raise InputError("the ablation has no setting; give --recipe, --alpha, --beta or --clip")
    return settings


def make_probe(space: SearchSpace, *, regimes: int, n: int, seed: int = 0) -> Probe:
    """Draws n sub-networks of each of some regimes of equal width in MACs."""
    macs = AdditiveMetric(space, count_macs)
    sampler = BudgetSampler(space, macs, bins=regimes)
    rng = np.random.default_rng(seed)
    codes = np.concatenate([sampler.draw(bin=regime, n=n, rng=rng) for regime in range(regimes)])
    return Probe(
        codes=codes,
        regimes=np.repeat(np.arange(regimes), n).tolist(),
        macs=macs(codes).astype(int).tolist(),
        edges=sampler.edges.tolist(),
    )


def study(
    space: SearchSpace,
    settings: Sequence[Setting],
    probe: Probe,
    out: Path,
    *,
    base: Recipe,
    seeds: Sequence[int],
    train: Callable[[Setting, Recipe], Accuracies],
    on_done: Callable[[Setting, int, list[Row]], None] = lambda setting, seed, rows: None,
) -> list[Row]:
    """Trains every setting with every seed and measures the probe's sub-networks.

    Args:
        space: The search space.
        settings: The grid.
        probe: The sub-networks to measure.
        out: The study's folder, which exists; rows are added to its CSV file after each training.
        base: The recipe that all settings share.
        seeds: Of the trainings.
        train: Trains by a recipe, and returns how to measure accuracies.
        on_done: Called with the new rows after each training.

    Returns:
        All rows, those of earlier calls included.

    Raises:
        FormatError: The folder's CSV file is no study.
    """
    rows = read_rows(out / CSV_NAME) if (out / CSV_NAME).exists() else []
    for seed in seeds:
        for setting in settings:
            if any(row.setting == setting.name and row.seed == seed for row in rows):
                continue
            accuracies = train(setting, setting.recipe(base, seed=seed))(space.decode(probe.codes))
            new = [
                Row(setting=setting.name, seed=seed, regime=regime, macs=macs, accuracy=accuracy)
                for regime, macs, accuracy in zip(probe.regimes, probe.macs, accuracies, strict=True)
            ]
            rows += new
            write_rows(out / CSV_NAME, rows)
            on_done(setting, seed, new)
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes a study's CSV file in one step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    write_text(path, text.getvalue())


def read_rows(path: Path) -> list[Row]:
    """Reads a study's CSV file.

    Raises:
        FormatError: A column is missing or a value does not read.
    """
    with open(path, encoding="utf-8", newline="") as file:
        try:
            return [
                Row(
                    setting=line["setting"],
                    seed=int(line["seed"]),
                    regime=int(line["regime"]),
                    macs=int(line["macs"]),
                    accuracy=float(line["accuracy"]),
                )
                for line in csv.DictReader(file)
            ]
        except (KeyError, TypeError, ValueError) as err:
            raise FormatError(f"{path} is no ablation study: {err!r}; give --out another folder") from err


def _alpha_setting(text: str) -> Setting:
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError as err:
        raise InputError(f"alpha {text!r} does not read; expected a number, or MIN:MAX such as -1:1") from err
    if len(values) == 1:
        return Setting(name=f"alpha {values[0]:g}", changes={"distillation": "alpha", "alpha": values[0]})
    low, high = values[0], values[-1]
    if len(values) != 2 or not low < high:
        raise InputError(f"alpha {text!r} does not read; expected a number, or MIN:MAX with MIN below MAX")
    changes = {"distillation": "adaptive-alpha", "alpha_min": low, "alpha_max": high}
    return Setting(name=f"alpha {low:g} to {high:g}", changes=changes)
