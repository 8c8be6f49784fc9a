"""Speed and quality of the search engine: python benchmarks/search.py [--json FILE]

1. Evolution over the AttentiveNAS space with two table look-up metrics: time and hypervolume, against random search.
2. Guided search against evolution at equal evaluations of an accuracy that is taken to be expensive.

Hypervolume is in percent of that of the best front known (evolution with ten times the evaluations). The accuracy is
synthetic: concave in every gene, with pair terms and a logarithm of the MACs; its weights are drawn anew for each seed.
Times are of one core; set OMP_NUM_THREADS=1 and pin the process (taskset -c 0) to compare runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nas2edge import AdditiveMetric, LayerSpec, SearchSpace, load_space
from nas2edge.costs import count_macs, op_macs
from nas2edge.search.evolution import evolve
from nas2edge.search.guided import evolve_guided, fit_kernel_ridge
from nas2edge.search.ledger import Problem, Vector
from nas2edge.search.pareto import Scores, hypervolume
from nas2edge.space import Codes

SEEDS = 3
WORST_ACCURACY = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="Write the results here.")
    args = parser.parse_args()
    results = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}",
        "evolution": evolution_rows(),
        "guided": guided_rows(),
    }
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def evolution_rows() -> list[dict[str, Any]]:
    """Time and hypervolume of evolution and of random search at three budgets."""
    space = load_space("attentivenas")
    rows = []
    print("evaluations  method     population    wall s   CPU s    HV %")
    for evaluations in (1_000, 10_000, 100_000):
        for population in (0, 50, 200):
            runs = [_one_run(space, evaluations, population, seed) for seed in range(SEEDS)]
            wall, cpu, volume = np.mean(runs, axis=0).tolist()
            method = "evolution" if population else "random"
            print(f"{evaluations:11,}  {method:10s} {population:10d}  {wall:8.3f}  {cpu:6.3f}  {volume:6.2f}")
            rows.append({"evaluations": evaluations, "method": method, "population": population, "wall_s": wall,
                         "cpu_s": cpu, "hypervolume_percent": volume})  # fmt: skip
    return rows


def guided_rows() -> list[dict[str, Any]]:
    """Hypervolume of guided search, evolution and random search at budgets of expensive evaluations."""
    rows = []
    print("\nspace         evaluations  method      HV %   own s")
    for name in ("tiny", "attentivenas"):
        for evaluations in (100, 200, 300):
            for method in ("random", "evolution", "guided"):
                runs = [_expensive_run(load_space(name), method, evaluations, seed) for seed in range(SEEDS)]
                own, volume = np.mean(runs, axis=0).tolist()
                print(f"{name:12s}  {evaluations:11d}  {method:9s}  {volume:6.2f}  {own:6.3f}")
                rows.append({"space": name, "evaluations": evaluations, "method": method, "own_s": own,
                             "hypervolume_percent": volume})  # fmt: skip
    return rows


def _one_run(space: SearchSpace, evaluations: int, population: int, seed: int) -> tuple[float, float, float]:
    problem, reference = _problem(space, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    scores = _scores(problem, "evolution" if population else "random", evaluations, population, seed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, 100.0 * hypervolume(scores, reference) / _best(space.name, seed, 1_000_000)


def _expensive_run(space: SearchSpace, method: str, evaluations: int, seed: int) -> tuple[float, float]:
    problem, reference = _problem(space, seed)
    cpu = time.process_time()
    scores = _scores(problem, method, evaluations, 16, seed)
    return time.process_time() - cpu, 100.0 * hypervolume(scores, reference) / _best(space.name, seed, 100_000)


def _scores(problem: Problem, method: str, evaluations: int, population: int, seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    if method == "random":
        return problem.score(problem.space.sample(evaluations, rng))
    if method == "evolution":
        return evolve(problem, evaluations=evaluations, population=population, rng=rng).scores

    def fit(codes: Codes, scores: Scores) -> Callable[[Codes], Scores]:
        model = fit_kernel_ridge(problem.space, codes, scores[:, 0])
        return lambda population: np.stack([model(population), problem.score(population)[:, 1]], axis=1)

    return evolve_guided(problem, fit=fit, evaluations=evaluations, population=population, rng=rng).scores


def _problem(space: SearchSpace, seed: int) -> tuple[Problem, tuple[float, float]]:
    accuracy, latency = _accuracy(space, seed), AdditiveMetric(space, _latency_ms)
    problem = Problem(
        space=space,
        objectives=2,
        score=lambda codes: np.stack([-accuracy(codes), latency(codes)], axis=1),
        violation=lambda codes: np.zeros(len(codes)),
    )
    return problem, (-WORST_ACCURACY, latency.maximum().value)


def _latency_ms(layer: LayerSpec) -> float:
    """A roofline: 50 GMAC/s, 4 G values/s to and from memory, 10 us a kernel."""
    total = 0.0
    for op in layer.ops:
        values = op.in_chs * op.hw_in**2 + op.out_chs * op.hw_out**2 + int(np.prod(op.weight_shape))
        total += max(op_macs(op) / 50e6, values / 4e6) + 0.01
    return total


def _accuracy(space: SearchSpace, seed: int) -> Callable[[Codes], Vector]:
    rng = np.random.default_rng(1000 + seed)
    n = len(space.genes)
    macs = AdditiveMetric(space, count_macs)
    low, high = macs.minimum().value, macs.maximum().value
    weights = rng.gamma(1.0, 1.0, n) * (space.cardinalities > 1)
    power, pairs = rng.uniform(0.3, 1.0, n), rng.normal(0.0, 0.13 / np.sqrt(n), (n, n))

    def accuracy(codes: Codes) -> Vector:
        x = codes / np.maximum(space.cardinalities - 1, 1)
        centred = (x - 0.5) * (space.cardinalities > 1)
        main = (x**power) @ (weights / weights.sum())
        size = np.log(macs(codes) / low) / np.log(high / low)
        return np.asarray(70.0 - 9.0 * np.expm1(-2.0 * main) + 2.0 * size + ((centred @ pairs) * centred).sum(axis=1))

    return accuracy


@cache
def _best(space_name: str, seed: int, evaluations: int) -> float:
    # Each seed has an accuracy function of its own, and so a best front of its own.
    problem, reference = _problem(load_space(space_name), seed)
    best = evolve(problem, evaluations=evaluations, population=400, rng=np.random.default_rng(99))
    return hypervolume(best.scores, reference)


if __name__ == "__main__":
    main()
