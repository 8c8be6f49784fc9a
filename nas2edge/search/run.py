"""The search itself: constraints and objectives over a space become one front and one choice.

>>> result = search(
...     space,
...     accuracy=PublishedAccuracy(space),
...     latency={"jetson-orin-nano": load_table("jetson-orin-nano")},
...     constraints=[Constraint(metric="latency_ms", limit=20.0, device="jetson-orin-nano")],
... )
>>> result.best.subnet
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas2edge.additive import AdditiveMetric
from nas2edge.errors import InputError, UnknownNameError
from nas2edge.search.algorithms import ALGORITHMS
from nas2edge.search.any_space import AnySpace, PlannedSpace, Space
from nas2edge.search.checkpoint import Checkpoint
from nas2edge.search.devices import device_metrics
from nas2edge.search.evolution import evolve
from nas2edge.search.exact import Exactness, exact_front, fit_additive
from nas2edge.search.front import Candidate, ParetoFront
from nas2edge.search.guided import evolve_guided
from nas2edge.search.ledger import Convergence, Evolved, Stop, Vector, front_of
from nas2edge.search.limits import Limit, Metric, check_limits, jointly_infeasible
from nas2edge.search.objective import Constraint, Objective
from nas2edge.search.pareto import Scores
from nas2edge.search.polish import polish
from nas2edge.search.restrict import Part, restrict
from nas2edge.search.task import Task
from nas2edge.space import Codes, SearchSpace

if TYPE_CHECKING:
    from nas2edge.latency.table import LatencyTable

Evaluator = Callable[[Sequence[Any]], Sequence[float]]
"""Accuracies of sub-networks (`SubnetConfig`s, where the space is a `SearchSpace`), in percent;
`supernet.evaluate.make_evaluator` makes one."""

EXACT = "exact"
NAMES = (*ALGORITHMS, EXACT)
DEFAULT_EVALUATIONS, DEFAULT_GUIDED_EVALUATIONS = 50_000, 200
DEFAULT_GUIDED_POPULATION = 16

_LEAST_TO_POLISH = 1000
_POLISHING_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The sub-network to deploy under some limits.

    Args:
        constraints: The limits.
        candidate: The most accurate sub-network found within them.
    """

    constraints: tuple[Constraint, ...]
    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult(ParetoFront):
    """What a search found: the front, with the choices and how it was found. Iterating yields the front's candidates.

    Args:
        objectives: What was traded off.
        candidates: All non-dominated candidates that meet the constraints, in ascending order of the first objective.
        choices: The chosen candidate for each set of alternative limits, or the one within all constraints.
        limits: Each constraint and whether it excludes anything.
        evaluations: Sub-networks whose accuracy was evaluated.
        examined: Sub-networks whose costs were looked up, these included.
        stop: "budget": all evaluations were spent; "exhausted": the whole space was seen, so the front is exact;
            "stalled": new sub-networks that meet the constraints could not be found.
        algorithm: "nsga2", "guided", "aging", "random", "alphanet" or "exact".
        population: Sub-networks in a generation, or in a round when guided.
        seed: As given.
        convergence: How the front grew; None unless there are two objectives and evolution found it.
        exactness: In what sense the front is exact, for the algorithm "exact".
        dominated: Objectives of a sample of what was scored and is not on the front: shape (n, objectives).
    """

    choices: tuple[Choice, ...]
    limits: tuple[Limit, ...]
    evaluations: int
    examined: int
    stop: Stop
    algorithm: str
    population: int
    seed: int
    convergence: Convergence | None = None
    exactness: Exactness | None = None
    dominated: Scores | None = field(default=None, compare=False, repr=False)

    @property
    def best(self) -> Candidate:
        """The first choice: without alternatives, the most accurate candidate that meets all constraints."""
        return self.choices[0].candidate

    @property
    def front(self) -> ParetoFront:
        """The front alone."""
        return ParetoFront(objectives=self.objectives, candidates=self.candidates)


def search(
    space: SearchSpace | Space,
    *,
    accuracy: Metric | None = None,
    evaluator: Evaluator | None = None,
    latency: Mapping[str, Metric | LatencyTable] | None = None,
    constraints: Sequence[Constraint] = (),
    alternatives: Sequence[Sequence[Constraint]] = (),
    objectives: Sequence[Objective] | None = None,
    fixed: Mapping[str, int] | None = None,
    forbidden: Mapping[str, Sequence[int]] | None = None,
    algorithm: str | None = None,
    evaluations: int | None = None,
    population: int | None = None,
    seed: int = 0,
    guided: bool | None = None,
    latency_sigma: Mapping[str, Metric] | None = None,
    measured_share: Mapping[str, Metric] | None = None,
    energy: Mapping[str, Metric] | None = None,
    resume: Path | None = None,
) -> SearchResult:
    """Searches a space for the sub-networks that are worth deploying.

    Costs are looked up first: a sub-network that breaks a constraint never costs an evaluation of accuracy.

    Args:
        space: A `SearchSpace`, or any object with `size`, `decode` and `plan` (`any_space.Space`).
        accuracy: Top-1 in percent of a population. Either this or `evaluator` is needed.
        evaluator: Top-1 in percent of sub-networks, where each takes seconds.
        latency: By device, a latency table, or milliseconds of a population. `AdditiveMetric`s (and tables) also tell
            whether a limit can be met.
        constraints: Limits that all candidates keep.
        alternatives: Sets of further limits, each of which gets a choice of its own.
        objectives: What to trade off, accuracy among it; by default accuracy against latency on every device, or
            against MACs without a device.
        fixed: Values of genes ("depth.2") or of all genes of a field ("kernel_size").
        forbidden: Values that a gene, or any gene of a field, must not have.
        algorithm: One of `NAMES`; by default evolution, guided by a model where accuracy is expensive.
        evaluations: The greatest number of sub-networks whose accuracy is evaluated. A space no larger is listed.
        population: Sub-networks in a generation, or in a round when guided.
        seed: Equal seeds give equal results.
        guided: Whether accuracy is expensive (seconds each), so that a model should choose what to evaluate; by default
            where an evaluator is given.
        latency_sigma: Standard error of the latency by device; tables bring it themselves.
        measured_share: Share of the latency from measured rows by device; tables bring it themselves.
        energy: Millijoules of a population by device; tables that state energies bring them themselves.
        resume: File in which "nsga2", and the search that a model guides, keep their state every ten seconds, and from
            which they go on to the same result when they were interrupted; removed at the end.

    Raises:
        InfeasibleError: No sub-network meets a constraint, or none was found that meets all.
        InputError: A number is out of range, accuracy is no objective, or a metric has no value for a sub-network.
        UnknownNameError: A constraint or an objective names a device without a latency, or there is no such algorithm.
    """
    _check_source(accuracy, evaluator)
    if seed < 0:
        raise InputError(f"seed is {seed}; expected zero or a positive number")
    place = _place(space, fixed or {}, forbidden or {})
    whole = place.outer if isinstance(place, Part) else place
    goals = _objectives(objectives, latency or {})
    every: tuple[Objective | Constraint, ...] = (*constraints, *(one for some in alternatives for one in some), *goals)
    task = Task(
        place=place,
        accuracy=accuracy or codes_from_evaluator(whole, evaluator or (lambda _: ())),
        devices=device_metrics(
            whole, latency or {}, sigma=latency_sigma, share=measured_share, energy=energy, entries=every
        ),
        constraints=tuple(constraints),
        alternatives=tuple(tuple(some) for some in alternatives),
        objectives=goals,
    )
    how = _how(algorithm, evaluations, population, guided=evaluator is not None if guided is None else guided)
    _check(task)
    return _run(task, how, seed=seed, resume=resume)


def _run(task: Task, how: _How, *, seed: int, resume: Path | None) -> SearchResult:
    limits = check_limits(task.space, [(constraint, task.metric(constraint)) for constraint in task.limits])
    rng = np.random.default_rng(seed)
    checkpoint = None if resume is None else _checkpoint(resume, task, how, seed)
    if how.algorithm == EXACT:
        found, exactness = _find_exactly(task, rng)
    else:
        found, exactness = _find(task, how, limits, rng, checkpoint), None
    if checkpoint:
        checkpoint.remove()
    candidates = task.candidates(found.codes, found.scores)
    return SearchResult(
        objectives=task.objectives,
        candidates=ParetoFront(objectives=task.objectives).extend(candidates).candidates,
        choices=_choices(task, found, candidates),
        limits=limits,
        evaluations=found.evaluations,
        examined=found.examined,
        stop=found.stop,
        algorithm=how.algorithm,
        population=how.population,
        seed=seed,
        convergence=found.convergence,
        exactness=exactness,
        dominated=_dominated(task, found),
    )


def _place(
    space: SearchSpace | Space, fixed: Mapping[str, int], forbidden: Mapping[str, Sequence[int]]
) -> Part | PlannedSpace:
    if isinstance(space, SearchSpace):
        return restrict(space, fixed, forbidden)
    if fixed or forbidden:
        raise InputError("genes can be fixed and forbidden in a SearchSpace alone; give a space without these choices")
    return PlannedSpace(space)


def _dominated(task: Task, found: Evolved) -> Scores | None:
    if found.sample is None:
        return None
    on_front = (found.sample[:, None] == found.scores[None]).all(axis=2).any(axis=1)
    return np.asarray(found.sample[~on_front] * [objective.sign for objective in task.objectives])


def codes_from_evaluator(space: AnySpace, evaluator: Evaluator) -> Metric:
    """Turns an evaluator of sub-networks into a metric of populations."""

    def evaluate(codes: Codes) -> Vector:
        return np.asarray(evaluator(space.decode(codes)), dtype=np.float64)

    return evaluate


def default_population(evaluations: int) -> int:
    """Returns the population that reached most at this number of evaluations: 50 at 1,000, doubled with each decade."""
    return int(np.clip(round(50 * 2 ** math.log10(max(evaluations, 1) / 1000)), 20, 800))


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    algorithm: str
    evaluations: int
    population: int


def _how(algorithm: str | None, evaluations: int | None, population: int | None, *, guided: bool) -> _How:
    if algorithm is not None and algorithm not in NAMES:
        raise UnknownNameError("algorithm", algorithm, NAMES)
    if algorithm == EXACT and guided:
        raise InputError(
            "the algorithm 'exact' needs an accuracy that is cheap, since it fits a sum to thousands of values; "
            "give a predictor, or published points, instead of a supernet"
        )
    if evaluations is None:
        evaluations = DEFAULT_GUIDED_EVALUATIONS if guided else DEFAULT_EVALUATIONS
    if population is None:
        population = DEFAULT_GUIDED_POPULATION if guided else default_population(evaluations)
    if evaluations < 1:
        raise InputError(f"evaluations is {evaluations}; expected at least 1")
    if population < 2:
        raise InputError(f"population is {population}; expected at least 2")
    default = "guided" if guided else "nsga2"
    return _How(algorithm=algorithm or default, evaluations=evaluations, population=population)


def _checkpoint(path: Path, task: Task, how: _How, seed: int) -> Checkpoint:
    if how.algorithm not in ("nsga2", "guided"):
        raise InputError(
            f"the algorithm {how.algorithm!r} keeps no state to resume from; leave --algorithm or --resume out"
        )
    place = (task.place.outer.digest, task.place.kept) if isinstance(task.place, Part) else task.place.digest
    asked = (place, task.constraints, task.alternatives, task.objectives, how, seed)
    return Checkpoint(path, identity=hashlib.sha256(repr(asked).encode()).hexdigest())


def _find(
    task: Task, how: _How, limits: Sequence[Limit], rng: np.random.Generator, checkpoint: Checkpoint | None
) -> Evolved:
    problem, seeds = task.problem(), task.seeds()
    if how.algorithm == "guided":
        return evolve_guided(
            problem,
            fit=task.fit,
            evaluations=how.evaluations,
            population=how.population,
            rng=rng,
            seeds=seeds,
            checkpoint=checkpoint,
        )
    polishing = 0
    if how.algorithm == "nsga2" and _LEAST_TO_POLISH <= how.evaluations < task.space.size:
        binding = any(limit.binds is not False for limit in limits)
        polishing = int(_POLISHING_SHARE * how.evaluations) // len(task.choices) if binding else 0
    most = how.evaluations - polishing * len(task.choices)
    how_many = {"evaluations": most, "population": how.population}
    if how.algorithm == "nsga2":
        found = evolve(problem, **how_many, rng=rng, seeds=seeds, checkpoint=checkpoint)
    else:
        found = ALGORITHMS[how.algorithm](problem, **how_many, rng=rng, seeds=seeds)
    for choice in task.choices if polishing and found.stop == "budget" else ():
        found = _polish(task, choice, found, evaluations=polishing, rng=rng)
    return found


def _polish(
    task: Task, choice: tuple[Constraint, ...], found: Evolved, *, evaluations: int, rng: np.random.Generator
) -> Evolved:
    """Goes on from the best within some limits, with accuracy as the only objective."""
    excess = task.excess(choice, found.codes)
    order = np.lexsort((found.scores[:, task.accuracy_column], excess))
    starts = found.codes[order] if len(order) else found.closest
    alone = polish(task.problem(choice), starts=starts, evaluations=evaluations - 1, rng=rng)
    codes, scores = found.codes, found.scores
    if len(alone.codes):
        codes, scores = front_of(np.vstack([codes, alone.codes]), np.vstack([scores, task.scores(alone.codes)]))
    return replace(
        found,
        codes=codes,
        scores=scores,
        evaluations=found.evaluations + alone.evaluations + len(alone.codes),
        examined=found.examined + alone.examined,
    )


def _find_exactly(task: Task, rng: np.random.Generator) -> tuple[Evolved, Exactness]:
    costs = [objective for objective in task.objectives if objective.metric != "accuracy"]
    named = {(cost.metric, cost.device) for cost in costs}
    plain = all((limit.metric, limit.device) in named and not limit.sigmas for limit in task.limits)
    cost = task.metric(costs[0]) if costs else None
    if len(costs) != 1 or not plain or not isinstance(cost, AdditiveMetric):
        said = "; ".join(entry.describe() for entry in task.entries if entry.metric != "accuracy") or "no cost"
        raise InputError(
            "the algorithm 'exact' takes one cost that is a sum over layers (a latency on one device, MACs, parameters "
            f"or model size), with limits on this cost alone and without confidence; got {said}: leave --algorithm out"
        )
    accuracy, space = task.metric(task.objectives[task.accuracy_column]), task.space
    assert isinstance(space, SearchSpace), space  # whose costs alone are `AdditiveMetric`s
    fit, error = (accuracy, 0.0) if isinstance(accuracy, AdditiveMetric) else fit_additive(space, accuracy, rng)
    limit = max(min((one.limit for one in choice), default=math.inf) for choice in task.choices)
    exact = exact_front(fit, cost, limit=None if math.isinf(limit) else limit)
    codes, scores = front_of(exact.codes, task.scores(exact.codes))
    found = Evolved(
        codes=codes,
        scores=scores,
        closest=cost.minimum().codes,
        evaluations=len(exact.codes),
        examined=task.space.size,
        stop="exhausted",
    )
    return found, Exactness(fit_error=error, bound=exact.bound, unit=exact.unit)


def _choices(task: Task, found: Evolved, candidates: Sequence[Candidate]) -> tuple[Choice, ...]:
    chosen = []
    for choice in task.choices:
        excess = task.excess(choice, found.codes)
        inside = [candidates[i] for i in np.flatnonzero(excess <= 0).tolist()]
        if not inside:
            codes = found.codes[[int(excess.argmin())]] if len(excess) else found.closest
            (closest,) = task.candidates(codes, np.full((1, len(task.objectives)), np.nan))
            raise jointly_infeasible(task.space, choice, closest, examined=found.examined)
        chosen.append(Choice(constraints=choice, candidate=_best(inside, task.objectives)))
    return tuple(chosen)


def _best(candidates: Sequence[Candidate], objectives: Sequence[Objective]) -> Candidate:
    others = [objective for objective in objectives if objective.metric != "accuracy"]
    return min(candidates, key=lambda c: (-c.accuracy, *(objective.sign * c.value(objective) for objective in others)))


def _objectives(given: Sequence[Objective] | None, latency: Mapping[str, Any]) -> tuple[Objective, ...]:
    if given is not None:
        return tuple(given)
    costs = [Objective(metric="latency_ms", direction="min", device=name) for name in latency]
    return (
        Objective(metric="accuracy", direction="max"),
        *(costs or [Objective(metric="macs", direction="min")]),
    )


def _check_source(accuracy: Metric | None, evaluator: Evaluator | None) -> None:
    if (accuracy is None) == (evaluator is None):
        raise InputError(
            "a search needs either accuracy (a function of populations) or evaluator (a function of sub-networks)"
        )


def _check(task: Task) -> None:
    if [entry.direction for entry in task.objectives if entry.metric == "accuracy"] != ["max"]:
        raise InputError("the objectives lack accuracy (max), once; the best candidate is the most accurate one")
    for entry in task.entries:
        task.metric(entry)
