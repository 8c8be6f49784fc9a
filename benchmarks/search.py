"""Speed and quality of the search engine: python benchmarks/search.py [--only PART] [--json FILE]

evolution: the AttentiveNAS space with two metrics looked up in tables: time and hypervolume of every algorithm, and of
    pymoo's NSGA-II where pymoo is installed (pip install 'nas2edge[bench]'): same evaluations, seeds, scores and
    reference point, run by run in turn, everything that was scored counts.
guided: guided search against evolution at equal evaluations of an accuracy that is taken to be expensive.
regret: how far searches stay below the exact optimum under 20 limits, for an accuracy that is a sum over stages.

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
from nas2edge.search import Constraint, search
from nas2edge.search.algorithms import ALGORITHMS
from nas2edge.search.evolution import evolve
from nas2edge.search.exact import exact_front
from nas2edge.search.guided import evolve_guided, fit_kernel_ridge
from nas2edge.search.ledger import Problem, Vector
from nas2edge.search.pareto import Scores, hypervolume
from nas2edge.search.run import default_population
from nas2edge.space import Codes

try:
    from pymoo_runs import PYMOO
except ImportError:
    PYMOO = {}

SEEDS = 3
_FINE = 131_072  # steps of the exact algorithm's grid
WORST_ACCURACY = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(PARTS), action="append", help="Run this part alone; repeatable.")
    parser.add_argument("--json", type=Path, help="Write the results here.")
    args = parser.parse_args()
    results: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
    }
    for name, part in PARTS.items():
        if not args.only or name in args.only:
            results[name] = part()
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def evolution_rows() -> list[dict[str, Any]]:
    """Time and hypervolume of every algorithm at three budgets."""
    space = load_space("attentivenas")
    rows = []
    print("evaluations  method              population    wall s   CPU s     HV %   worst seed")
    for evaluations in (1_000, 10_000, 100_000):
        population = default_population(evaluations)
        methods = [*ALGORITHMS, *PYMOO]
        # Seed by seed, so that a busy machine is busy for all methods alike.
        runs: dict[str, list[tuple[float, float, float]]] = {method: [] for method in methods}
        for seed in range(SEEDS):
            for method in methods:
                runs[method].append(_one_run(space, method, evaluations, population, seed))
        for method in methods:
            wall, cpu, volume = np.mean(runs[method], axis=0).tolist()
            worst = min(run[2] for run in runs[method])
            print(f"{evaluations:11,}  {method:18s}  {population:10d}  {wall:8.3f}  {cpu:6.3f}  {volume:7.3f}  "
                  f"{worst:7.3f}")  # fmt: skip
            rows.append({"evaluations": evaluations, "method": method, "population": population, "wall_s": wall,
                         "cpu_s": cpu, "hypervolume_percent": volume, "worst_percent": worst})  # fmt: skip
    return rows


def guided_rows() -> list[dict[str, Any]]:
    """Hypervolume of guided search, evolution and random search at budgets of expensive evaluations."""
    rows = []
    print("\nspace         evaluations  method      HV %   own s")
    for name in ("tiny", "attentivenas"):
        for evaluations in (100, 200, 300):
            for method in ("random", "nsga2", "guided"):
                runs = [_expensive_run(load_space(name), method, evaluations, seed) for seed in range(SEEDS)]
                own, volume = np.mean(runs, axis=0).tolist()
                print(f"{name:12s}  {evaluations:11d}  {method:9s}  {volume:6.2f}  {own:6.3f}")
                rows.append({"space": name, "evaluations": evaluations, "method": method, "own_s": own,
                             "hypervolume_percent": volume})  # fmt: skip
    return rows


def regret_rows() -> list[dict[str, Any]]:
    """Points of accuracy that searches stay below the exact optimum of an additive accuracy, under 20 limits."""
    rows = []
    print("\nseed  method                        evaluations  mean regret     worst  optima of 20  CPU s a limit")
    for seed in range(SEEDS):
        case = _Additive(load_space("attentivenas"), seed)
        started = time.process_time()
        exact = [exact_front(case.accuracy, case.latency, limit=limit, steps=_FINE) for limit in case.limits]
        best = np.array([case.accuracy(front.codes).max() for front in exact])
        bounds = np.array([front.bound for front in exact])
        rows.append(_regret_row(seed, "exact, against its bound", 0, bounds - best, started))
        for evaluations in (10_000, 50_000):
            started = time.process_time()
            found = np.array([case.best_within(limit, evaluations) for limit in case.limits])
            rows.append(_regret_row(seed, "search, a run for each limit", evaluations, best - found, started))
        started = time.process_time()
        rows.append(
            _regret_row(seed, "evolution, one front for all", 100_000, best - case.best_of_front(100_000), started)
        )
    return rows


def _regret_row(seed: int, method: str, evaluations: int, regret: Vector, started: float) -> dict[str, Any]:
    seconds, hits = (time.process_time() - started) / len(regret), int((regret < 1e-9).sum())
    print(f"{seed:4d}  {method:28s}  {evaluations:11,}  {regret.mean():11.4f}  {regret.max():8.4f}  {hits:12d}  "
          f"{seconds:13.3f}")  # fmt: skip
    return {"seed": seed, "method": method, "evaluations": evaluations, "mean": float(regret.mean()),
            "worst": float(regret.max()), "optima": hits, "cpu_s_per_limit": seconds}  # fmt: skip


class _Additive:
    """A problem with a known optimum: accuracy and latency are both sums over stages."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space, self.seed = space, seed
        self.accuracy, self.latency = _additive_accuracy(space, seed), AdditiveMetric(space, _latency_ms)
        least, greatest = self.latency.minimum().value, self.latency.maximum().value
        self.limits: list[float] = np.geomspace(least * 1.02, greatest * 0.9, 20).tolist()

    def best_within(self, limit: float, evaluations: int) -> float:
        found = search(
            self.space,
            accuracy=self.accuracy,
            latency={"device": self.latency},
            constraints=[Constraint(metric="latency_ms", limit=limit, device="device")],
            evaluations=evaluations,
            seed=self.seed,
        )
        return found.best.accuracy

    def best_of_front(self, evaluations: int) -> Vector:
        problem = Problem(
            space=self.space,
            objectives=2,
            score=lambda codes: np.stack([-self.accuracy(codes), self.latency(codes)], axis=1),
            violation=lambda codes: np.zeros(len(codes)),
        )
        population, rng = default_population(evaluations), np.random.default_rng(self.seed)
        scores = evolve(problem, evaluations=evaluations, population=population, rng=rng).scores
        return np.array([-scores[scores[:, 1] <= limit, 0].min() for limit in self.limits])


def _additive_accuracy(space: SearchSpace, seed: int) -> AdditiveMetric:
    """A sum over stages: every choice helps, less and less, and every combination within a stage by a little chance."""
    rng = np.random.default_rng(2000 + seed)
    pieces = []
    for piece in AdditiveMetric(space, count_macs).pieces:
        table = rng.normal(0.0, 0.05, piece.table.shape)
        for axis, n in enumerate(piece.table.shape):
            gain = rng.gamma(1.0, 0.6) * np.sqrt(np.arange(n))
            table = table + gain.reshape([-1 if i == axis else 1 for i in range(table.ndim)])
        pieces.append(piece.with_table(table))
    pieces[0] = pieces[0].with_table(pieces[0].table + 60.0)
    return AdditiveMetric.of_pieces(pieces, genes=len(space.genes))


def _one_run(
    space: SearchSpace, method: str, evaluations: int, population: int, seed: int
) -> tuple[float, float, float]:
    problem, reference = _problem(space, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    scores = _scores(problem, method, evaluations, population, seed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, 100.0 * hypervolume(scores, reference) / _best(space.name, seed, 1_000_000)


def _expensive_run(space: SearchSpace, method: str, evaluations: int, seed: int) -> tuple[float, float]:
    problem, reference = _problem(space, seed)
    cpu = time.process_time()
    scores = _scores(problem, method, evaluations, 16, seed)
    return time.process_time() - cpu, 100.0 * hypervolume(scores, reference) / _best(space.name, seed, 100_000)


def _scores(problem: Problem, method: str, evaluations: int, population: int, seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    if method in ALGORITHMS:
        return ALGORITHMS[method](problem, evaluations=evaluations, population=population, rng=rng).scores
    if method in PYMOO:
        return PYMOO[method](problem, evaluations=evaluations, population=population, seed=seed)

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


PARTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "evolution": evolution_rows,
    "guided": guided_rows,
    "regret": regret_rows,
}

if __name__ == "__main__":
    main()
