"""The engine: exact on small problems, reproducible, bounded, and never twice on the same network."""

from collections.abc import Callable

import numpy as np
import pytest

from nas2edge import AdditiveMetric, load_space
from nas2edge.costs import count_macs, count_params
from nas2edge.search.algorithms import ALGORITHMS
from nas2edge.search.evolution import breed, spread
from nas2edge.search.guided import evolve_guided, fit_kernel_ridge
from nas2edge.search.ledger import Evolved, Problem, Seen, front_of
from nas2edge.search.pareto import Scores, hypervolume
from nas2edge.space import Codes, SearchSpace
from tests.search_spaces import every_code, small_space

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]


def _worth(space: SearchSpace) -> Callable[[Codes], Vector]:
    """A made-up accuracy: every gene helps, each choice less than the one before, some pairs more than their sum."""
    rng = np.random.default_rng(7)
    gain = rng.random(len(space.genes)) * (space.cardinalities > 1)
    pairs = rng.normal(0, 0.03, (len(space.genes), len(space.genes)))

    def worth(codes: Codes) -> Vector:
        x = codes / np.maximum(space.cardinalities - 1, 1)
        return np.asarray(70 + (np.sqrt(x) * gain).sum(axis=1) + ((x @ pairs) * x).sum(axis=1))

    return worth


def _problem(space: SearchSpace, *, limit: float = np.inf, calls: list[Codes] | None = None) -> Problem:
    worth, macs = _worth(space), AdditiveMetric(space, count_macs)

    def score(codes: Codes) -> Scores:
        if calls is not None:
            calls.append(codes)
        return np.stack([-worth(codes), macs(codes)], axis=1)

    return Problem(
        space=space, objectives=2, score=score, violation=lambda codes: np.maximum(0.0, macs(codes) / limit - 1.0)
    )


def _search(problem: Problem, engine: str, *, evaluations: int, seed: int = 0, population: int = 20) -> Evolved:
    rng = np.random.default_rng(seed)
    if engine != "guided":
        return ALGORITHMS[engine](problem, evaluations=evaluations, population=population, rng=rng)

    def fit(codes: Codes, scores: Scores) -> Callable[[Codes], Scores]:
        assert isinstance(problem.space, SearchSpace)
        model, macs = fit_kernel_ridge(problem.space, codes, scores[:, 0]), AdditiveMetric(problem.space, count_macs)
        return lambda population: np.stack([model(population), macs(population)], axis=1)

    return evolve_guided(problem, fit=fit, evaluations=evaluations, population=population, rng=rng)


engines = pytest.mark.parametrize("engine", [*ALGORITHMS, "guided"])
searching = pytest.mark.parametrize("engine", ["nsga2", "aging", "alphanet", "guided"])  # all but random draws


@pytest.mark.parametrize("engine", ALGORITHMS)
def test_a_space_no_larger_than_the_budget_is_listed_so_its_front_is_exact(engine: str) -> None:
    space = small_space()
    problem = _problem(space)
    codes, scores = front_of(every_code(space), problem.score(every_code(space)))

    found = _search(problem, engine, evaluations=space.size)

    assert (found.stop, found.evaluations) == ("exhausted", space.size)
    assert np.array_equal(found.codes, codes)
    assert np.array_equal(found.scores, scores)


def test_evolution_finds_the_exact_front_without_listing_the_space() -> None:
    space = small_space()
    problem = _problem(space)
    exact = front_of(every_code(space), problem.score(every_code(space)))[1]
    reference = (0.0, float(exact[:, 1].max()) * 1.01)

    found = _search(problem, "nsga2", evaluations=1200, population=60)

    assert found.scores[0, 0] == exact[0, 0]
    assert found.scores[-1, 1] == exact[-1, 1]
    assert hypervolume(found.scores, reference) > 0.999 * hypervolume(exact, reference)


def test_a_single_objective_search_finds_the_optimum_under_a_limit() -> None:
    space = small_space()
    pair = _problem(space, limit=300e3)
    single = Problem(space=space, objectives=1, score=lambda codes: pair.score(codes)[:, :1], violation=pair.violation)
    allowed = every_code(space)[pair.violation(every_code(space)) <= 0]
    assert 100 < len(allowed) < space.size / 2

    found = _search(single, "nsga2", evaluations=600)

    assert found.scores[:, 0].tolist() == [single.score(allowed).min()]


def test_three_objectives_find_the_same_front_as_listing() -> None:
    space = small_space()
    pair, params = _problem(space), AdditiveMetric(space, count_params)
    problem = Problem(
        space=space,
        objectives=3,
        score=lambda codes: np.column_stack([pair.score(codes), params(codes)]),
        violation=pair.violation,
    )
    exact = front_of(every_code(space), problem.score(every_code(space)))[1]

    found = _search(problem, "nsga2", evaluations=2000, population=200)

    on_exact_front = (found.scores[:, None] == exact[None]).all(axis=2).any(axis=1)
    assert on_exact_front.mean() > 0.95
    assert len(found.scores) > 0.9 * len(exact)


@engines
def test_equal_seeds_give_equal_results_and_others_do_not(engine: str) -> None:
    problem = _problem(load_space("tiny"))

    a, b, c = (_search(problem, engine, evaluations=120, seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(a.codes, b.codes)
    assert np.array_equal(a.scores, b.scores)
    assert not np.array_equal(a.codes, c.codes)


@engines
def test_no_network_is_scored_twice_and_the_budget_is_kept(engine: str) -> None:
    calls: list[Codes] = []
    problem = _problem(load_space("tiny"), calls=calls)

    found = _search(problem, engine, evaluations=157)

    scored = np.vstack(calls)
    assert len(scored) == len(np.unique(scored, axis=0)) == found.evaluations == 157
    assert found.stop == "budget"


@engines
def test_a_network_beyond_the_limit_is_never_scored(engine: str) -> None:
    calls: list[Codes] = []
    problem = _problem(load_space("tiny"), limit=2e6, calls=calls)

    found = _search(problem, engine, evaluations=100)

    assert (problem.violation(np.vstack(calls)) <= 0).all()
    assert found.evaluations == 100
    assert found.examined >= 100


@searching
def test_an_impossible_limit_ends_without_scoring_and_names_the_closest(engine: str) -> None:
    space = load_space("tiny")
    calls: list[Codes] = []
    problem = _problem(space, limit=1e3, calls=calls)

    found = _search(problem, engine, evaluations=50)

    assert (found.stop, found.evaluations, calls, len(found.codes)) == ("stalled", 0, [], 0)
    assert space.decode(found.closest) == [space.smallest()]


@searching
def test_a_limit_that_a_single_network_meets_finds_it_and_ends(engine: str) -> None:
    space = load_space("tiny")
    smallest = AdditiveMetric(space, count_macs).minimum()

    found = _search(_problem(space, limit=smallest.value), engine, evaluations=50)

    assert space.decode(found.codes) == [space.smallest()]
    assert found.stop == "stalled"


def test_evolution_is_far_better_than_random_search() -> None:
    problem = _problem(load_space("attentivenas"))
    random = problem.score(problem.space.sample(5000, np.random.default_rng(0)))
    reference = (float(random[:, 0].max()), 2e9)

    found = _search(problem, "nsga2", evaluations=5000, population=50)

    assert hypervolume(found.scores, reference) > 1.05 * hypervolume(random, reference)


def test_evolution_is_no_worse_than_the_other_algorithms() -> None:
    problem = _problem(load_space("attentivenas"))

    volume = {
        name: sum(
            hypervolume(_search(problem, name, evaluations=3000, seed=seed, population=50).scores, (-70.0, 2e9))
            for seed in range(2)
        )
        for name in ALGORITHMS
    }

    assert max(volume, key=lambda name: volume[name]) == "nsga2"
    assert min(volume, key=lambda name: volume[name]) == "random"


def test_convergence_rises_to_the_final_hypervolume() -> None:
    problem = _problem(load_space("tiny"))

    found = _search(problem, "nsga2", evaluations=500)

    course = found.convergence
    assert course is not None
    assert course.evaluations[-1] == 500
    assert list(course.evaluations) == sorted(set(course.evaluations))
    assert list(course.hypervolume) == sorted(course.hypervolume)
    assert course.hypervolume[-1] > course.hypervolume[0] > 0


def test_at_a_hundred_evaluations_the_model_beats_plain_evolution() -> None:
    problem = _problem(load_space("attentivenas"))
    reference = (-70.0, 2e9)

    def volume(engine: str) -> float:
        found = [_search(problem, engine, evaluations=100, seed=seed, population=16) for seed in range(3)]
        return sum(hypervolume(one.scores, reference) for one in found)

    assert volume("guided") > 1.02 * volume("nsga2")


def test_kernel_ridge_recovers_a_smooth_function_from_two_hundred_points() -> None:
    space = load_space("tiny")
    worth, rng = _worth(space), np.random.default_rng(3)
    train, test = space.sample(200, rng), space.sample(500, rng)

    predicted = fit_kernel_ridge(space, train, worth(train))(test)

    assert np.corrcoef(predicted, worth(test))[0, 1] > 0.95


def test_kernel_ridge_of_equal_values_is_that_value() -> None:
    space = load_space("tiny")
    codes = space.sample(5, np.random.default_rng(0))

    assert fit_kernel_ridge(space, codes, np.full(5, 61.0))(codes).tolist() == [61.0] * 5


def test_a_spread_reaches_from_the_smallest_to_the_largest_network() -> None:
    space = load_space("attentivenas")
    macs = AdditiveMetric(space, count_macs)

    codes = spread(space, 200, np.random.default_rng(0))

    assert space.decode(codes[[0, -1]]) == [space.smallest(), space.largest()]
    values = macs(codes)
    assert (values < 300e6).sum() > 10
    assert (values > 1400e6).sum() > 10


def test_children_are_members_of_the_space() -> None:
    space = load_space("attentivenas")
    rng = np.random.default_rng(0)

    children = breed(space.sample(50, rng), 500, space, rng)

    assert children.shape == (500, len(space.genes))
    assert ((children >= 0) & (children < space.cardinalities)).all()


def test_mutation_always_takes_another_value_where_there_is_one() -> None:
    space = load_space("attentivenas")
    rng = np.random.default_rng(0)
    codes = space.sample(200, rng)

    mutated = space.mutate(codes, rng, rate=1.0)

    assert ((mutated != codes) == (space.cardinalities > 1)).all()


def test_decode_is_the_inverse_of_encode() -> None:
    space = load_space("attentivenas")
    codes = space.sample(50, np.random.default_rng(0))

    assert np.array_equal(space.encode(space.decode(codes)), codes)


def test_seen_tells_rows_apart_and_keeps_the_first_of_repeats() -> None:
    seen = Seen(small_space())
    codes = every_code(small_space())[[0, 5, 0, 7, 5]]

    assert np.array_equal(seen.unseen(codes), codes[[0, 1, 3]])
    assert seen.is_new(every_code(small_space())[[0, 1]]).tolist() == [False, True]
    assert len(seen.unseen(codes)) == 0
    assert len(seen) == 3


def test_seen_is_exact_over_a_whole_space() -> None:
    seen = Seen(small_space())

    assert len(seen.unseen(every_code(small_space()))) == small_space().size
