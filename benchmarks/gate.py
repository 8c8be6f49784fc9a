"""How often does the latency gate cry wolf, and what does it catch? Many runs of it on this machine.

Usage: python benchmarks/gate.py run --setting loaded --cpu 0     (again to go on where it stopped)
       python benchmarks/gate.py report

The networks are chains of 20, 21, 22 and 24 equal blocks, so that a new network of 21 blocks is 5 % more work by
construction. Cases are run in turn, and beside each gate stands the usual comparison: time one network in a process,
then the other in another, and divide their medians. Every run is one line of gate/runs.jsonl.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import click
import numpy as np
import onnx

from nas2edge.bench.artefact import Artefact, find_artefact
from nas2edge.bench.gate import Comparison, Rule, decide
from nas2edge.bench.measure import Options, measure_round
from nas2edge.bench.process import Worker
from nas2edge.files import write_json
from nas2edge.graph import chain_model, random_weights
from nas2edge.latency.machine import read_machine
from nas2edge.plan import LayerSpec

HERE = Path(__file__).parent / "gate"
RUNS, RESULTS = HERE / "runs.jsonl", HERE / "results.json"
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "gate.png"
BLOCKS = 20
CASES = {"A/A": 20, "+5 %": 21, "+10 %": 22, "+20 %": 24}
WANTED = {"A/A": 200, "+5 %": 40, "+10 %": 40, "+20 %": 40}
BUDGET_S = {"A/A": 60.0, "+5 %": 240.0, "+10 %": 240.0, "+20 %": 240.0}
WITHIN_S = {"+5 %": 120.0, "+10 %": 60.0, "+20 %": 60.0}  # in which a slowdown should be found on a quiet machine
LIMIT = 0.02
SEQUENTIAL_S = 0.75
TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0)
SETTINGS = {
    "quiet": "nothing else is running",
    "neighbour": "another program has the other core",
    "loaded": "other programs load both cores",
}


@click.group()
def main() -> None:
    """Evidence for the latency gate."""


@main.command()
@click.option("--setting", type=click.Choice(list(SETTINGS)), required=True, help="What else the machine is doing.")
@click.option("--cpu", type=click.IntRange(min=0), default=0, show_default=True, help="The core to run on.")
@click.option("--minutes", type=float, default=1e9, help="Stop after so long.  [default: when complete]")
@click.option("--only", type=click.Choice(list(CASES)), multiple=True, help="Only these cases; repeatable.")
def run(setting: str, cpu: int, minutes: float, only: tuple[str, ...]) -> None:
    """Runs the gate again and again; goes on from what is there."""
    HERE.mkdir(exist_ok=True)
    os.sched_setaffinity(0, {cpu})
    end = monotonic() + 60.0 * minutes
    with tempfile.TemporaryDirectory() as folder:
        artefacts = {case: _chain(Path(folder), blocks) for case, blocks in CASES.items()}
        for case in _due(setting, only):
            if monotonic() > end:
                break
            record = {"setting": setting, "cpu": cpu, **_one(artefacts["A/A"], artefacts[case], case)}
            with RUNS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            shown = ", ".join(
                f"{name} {record[name]}" for name in ("ratio", "low", "high", "seconds", "sequential", "load")
            )
            click.echo(f"{setting} {case}: {record['verdict']}; {shown}")


@main.command()
def report() -> None:
    """Writes results.json and the figure from all runs."""
    records = _records()
    settings = [setting for setting in SETTINGS if any(record["setting"] == setting for record in records)]
    write_json(RESULTS, {
        "format": "nas2edge.gate_evidence",
        "version": 1,
        "limit": LIMIT,
        "machine": {"chip": read_machine().chip, "cores": read_machine().cores},
        "settings": {setting: _summary(records, setting) for setting in settings},
    })  # fmt: skip
    _draw(records, settings)
    click.echo(RESULTS.read_text())


def _due(setting: str, only: tuple[str, ...]) -> Iterator[str]:
    """Cases in turn, five A/A to one of each other, until there are as many as wanted."""
    while True:
        done = Counter(record["case"] for record in _records() if record["setting"] == setting)
        missing = {case: n - done[case] for case, n in WANTED.items() if case in (only or CASES)}
        case = max(missing, key=lambda case: missing[case] / WANTED[case])
        if missing[case] <= 0:
            return
        yield case


def _one(old: Artefact, new: Artefact, case: str) -> dict[str, Any]:
    load = os.getloadavg()[0]
    options = Options()
    sequential = _median_alone(new) / _median_alone(old)
    rule = Rule(max_slowdown=LIMIT, budget_s=BUDGET_S[case])
    numbers = count()
    decision = decide(lambda: measure_round([old, new, old], options, number=next(numbers)), rule)
    return {
        "case": case,
        "budget_s": rule.budget_s,
        "verdict": decision.verdict,
        **_figures(decision.comparison),
        "confirmation": _figures(decision.confirmation) if decision.confirmation else None,
        "seconds": round(decision.seconds, 2),
        "sequential": round(sequential, 5),
        "load": load,
        "nice": os.nice(0),
        "disturbed": round(float(np.mean([found.disturbed for found in decision.rounds])), 3),
    }


def _figures(found: Comparison | None) -> dict[str, Any]:
    if found is None:
        return {"ratio": None, "low": None, "high": None, "control": None, "rounds": 0}
    return {
        "ratio": round(found.ratio.estimate, 5),
        "low": round(found.ratio.low, 5),
        "high": round(found.ratio.high, 5),
        "control": round(found.control.estimate, 5),
        "rounds": found.rounds,
    }


def _median_alone(artefact: Artefact) -> float:
    """Seconds a run: the median over a while, in a process of its own, with nothing to compare with."""
    with Worker(artefact.name, artefact.runtime, time_limit_s=60.0) as worker:
        ready = worker.ask(path=str(artefact.path), threads=1, shape=None, seed=0)
        return float(np.median(worker.ask(do="slice", runs=round(SEQUENTIAL_S / ready["run_s"]))["seconds"]))


def _chain(folder: Path, blocks: int) -> Artefact:
    layers = [
        LayerSpec(name=f"chain.{i}", op="mbconv", hw_in=8, hw_out=8, in_chs=48, mid_chs=48, out_chs=48, kernel_size=3,
                  stride=1, act="swish", shortcut="identity")
        for i in range(blocks)
    ]  # fmt: skip
    path = folder / f"chain{blocks}.onnx"
    onnx.save(chain_model(layers, random_weights(layers, np.random.default_rng(0))), path)
    return find_artefact(str(path))


def _records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []


def _summary(records: list[dict[str, Any]], setting: str) -> dict[str, Any]:
    return {case: _case_summary(case, found) for case, found in _by_case(records, setting).items() if found}


def _by_case(records: list[dict[str, Any]], setting: str) -> dict[str, list[dict[str, Any]]]:
    ours = [record for record in records if record["setting"] == setting]
    return {case: [record for record in ours if record["case"] == case] for case in CASES}


def _case_summary(case: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    verdicts = Counter(record["verdict"] for record in found)
    ratios = [record["ratio"] for record in found if record["ratio"] is not None]
    seconds, sequential = ([record[name] for record in found] for name in ("seconds", "sequential"))
    return {
        "runs": len(found),
        "passed": verdicts["passed"],
        "failed": verdicts["failed"],
        "inconclusive": verdicts["inconclusive"],
        "failed_within_s": None
        if case not in WITHIN_S
        else {
            f"{WITHIN_S[case]:g}": sum(
                record["verdict"] == "failed" and record["seconds"] <= WITHIN_S[case] for record in found
            )
        },
        "seconds_p50": float(np.median(seconds)),
        "seconds_max": max(seconds),
        "ratio_p50": float(np.median(ratios)) if ratios else None,
        "ratio_range": [min(ratios), max(ratios)] if ratios else None,
        "sequential_alarms": sum(ratio > 1.0 + LIMIT for ratio in sequential),
        "sequential_range": [min(sequential), max(sequential)],
        "load_range": [min(record["load"] for record in found), max(record["load"] for record in found)],
    }


def _draw(records: list[dict[str, Any]], settings: list[str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(settings), figsize=(6.2 * len(settings), 4.2), sharey=True, squeeze=False)
    rng = np.random.default_rng(0)
    shown = [record[name] for record in records for name in ("ratio", "sequential") if record[name] is not None]
    low, high = 0.98 * min(shown), 1.05 * max(shown)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    colours = {"passed": "#2a7f3f", "inconclusive": "#b8860b", "failed": "#b22222"}
    for axis, setting in zip(axes[0], settings, strict=True):
        for i, (case, found) in enumerate(_by_case(records, setting).items()):
            if not found:
                continue
            jitter = rng.uniform(-0.12, 0.12, len(found))
            axis.scatter(i - 0.2 + jitter, [record["sequential"] for record in found], s=7, color="#8a8a8a")
            for verdict, colour in colours.items():
                chosen = [(j, record["ratio"]) for j, record in zip(jitter, found, strict=True)
                          if record["verdict"] == verdict and record["ratio"] is not None]  # fmt: skip
                if chosen:
                    axis.scatter([i + 0.2 + j for j, _ in chosen], [ratio for _, ratio in chosen], s=7, color=colour)
            truth = CASES[case] / BLOCKS
            axis.plot([i - 0.4, i + 0.4], [truth, truth], color="black", linewidth=0.8)
        axis.axhline(1.0 + LIMIT, color="#4060c0", linewidth=0.8, linestyle="--")
        axis.set_xticks(range(len(CASES)), list(CASES))
        axis.set_title(f"{setting}: {SETTINGS[setting]}", fontsize=10)
        axis.set_yscale("log")
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ylim(low, high)
        axis.minorticks_off()
        axis.grid(axis="y", linewidth=0.3)
    axes[0][0].set_ylabel("new / old")
    dots = {"one after the other": "#8a8a8a", **{f"gate: {name}": colour for name, colour in colours.items()}}
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", markersize=4, color=colour, label=label)
        for label, colour in dots.items()
    ]
    handles.append(plt.Line2D([], [], color="black", linewidth=0.8, label="truth, by construction"))
    limit = plt.Line2D([], [], color="#4060c0", linewidth=0.8, linestyle="--", label=f"limit, {LIMIT:+.0%}")
    handles.append(limit)
    axes[0][0].legend(handles=handles, fontsize=7, loc="upper left")
    figure.tight_layout()
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=130)


if __name__ == "__main__":
    main()
