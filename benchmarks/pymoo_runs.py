"""pymoo's NSGA-II on a problem of ours, for benchmarks/search.py and as an oracle in tests.

Two settings: its own operators with rounding, as tools for architectures set it, and uniform crossover with a mutation
that always takes another choice, which suits categories better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize

from nas2edge.search.ledger import Problem
from nas2edge.search.pareto import Scores


class _Ours(PymooProblem):
    """A problem of ours over the genes that have a choice; remembers everything that was scored."""

    def __init__(self, problem: Problem) -> None:
        cardinalities = problem.space.cardinalities
        self.free = np.flatnonzero(cardinalities > 1)
        self.genes = len(cardinalities)
        self.score = problem.score
        self.scored: list[Scores] = []
        upper = cardinalities[self.free] - 1
        super().__init__(n_var=len(self.free), n_obj=problem.objectives, xl=np.zeros(len(upper)), xu=upper, vtype=int)

    def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        codes = np.zeros((len(x), self.genes), dtype=np.int64)
        codes[:, self.free] = x
        out["F"] = self.score(codes)
        self.scored.append(out["F"])


class _AnotherChoice(Mutation):
    """Changes each gene with probability one over their number, always to another value."""

    def _do(self, problem: Any, x: Any, **kwargs: Any) -> Any:
        rng = kwargs["random_state"]
        choices = problem.xu.astype(np.int64) + 1
        changed = rng.random(x.shape) < 1.0 / problem.n_var
        return np.where(changed, (x + rng.integers(1, choices, size=x.shape)) % choices, x)


def _run(problem: Problem, *, evaluations: int, population: int, seed: int, **operators: Any) -> Scores:
    ours = _Ours(problem)
    algorithm = NSGA2(pop_size=population, sampling=IntegerRandomSampling(), eliminate_duplicates=True, **operators)
    minimize(ours, algorithm, ("n_evals", evaluations), seed=seed, verbose=False)
    return np.concatenate(ours.scored)[:evaluations]


def run_rounded(problem: Problem, *, evaluations: int, population: int, seed: int) -> Scores:
    """Runs pymoo with its real-valued operators, rounded; returns everything that it scored."""
    crossover = SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair())
    mutation = PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair())
    return _run(
        problem, evaluations=evaluations, population=population, seed=seed, crossover=crossover, mutation=mutation
    )


def run_categorical(problem: Problem, *, evaluations: int, population: int, seed: int) -> Scores:
    """Runs pymoo with uniform crossover and our kind of mutation; returns everything that it scored."""
    return _run(
        problem, evaluations=evaluations, population=population, seed=seed, crossover=UX(), mutation=_AnotherChoice()
    )


PYMOO: dict[str, Callable[..., Scores]] = {"pymoo, SBX and PM": run_rounded, "pymoo, categorical": run_categorical}
