"""Several limits in one search, limits with a margin, limits of size and memory, fixed genes, and polishing."""

from typing import Any

import numpy as np
import pytest

from nas2edge import AdditiveMetric, LayerSpec, count, load_space, plan
from nas2edge.costs import count_macs, count_params, peak_activations
from nas2edge.errors import InfeasibleError, InputError, UnknownNameError
from nas2edge.latency.metrics import SigmaMetric
from nas2edge.peak import PeakMetric
from nas2edge.search import Constraint, Objective, search
from tests.search_spaces import every_code, small_space

SPACE = small_space()
EVERY = every_code(SPACE)
MACS = AdditiveMetric(SPACE, count_macs)
PARAMS = AdditiveMetric(SPACE, count_params)


def _latency_of(layer: LayerSpec) -> float:
    return count_macs(layer) / 1e6 + 0.01 * layer.kernel_size


LATENCY = AdditiveMetric(SPACE, _latency_of)
SIGMA = SigmaMetric(LATENCY, AdditiveMetric(SPACE, lambda layer: (0.3 * _latency_of(layer)) ** 2), rel_sigma=0.1)


def _accuracy(codes: Any) -> Any:
    return 60.0 + np.sqrt(codes + 0.1 * np.arange(codes.shape[1])).sum(axis=1)


def _search(**changes: Any) -> Any:
    return search(SPACE, **{"accuracy": _accuracy, "evaluations": 3000, "population": 50, **changes})


def _within(limit: float, device: str = "pi", **changes: Any) -> Constraint:
    return Constraint(metric="latency_ms", limit=limit, device=device, **changes)


def test_every_alternative_gets_the_most_accurate_within_its_own_limits() -> None:
    limits = np.quantile(LATENCY(EVERY), [0.7, 0.3, 0.05]).tolist()

    result = _search(latency={"pi": LATENCY}, alternatives=[[_within(limit)] for limit in limits])

    found = [choice.candidate.accuracy for choice in result.choices]
    assert found == [_accuracy(EVERY)[LATENCY(EVERY) <= limit].max() for limit in limits]
    assert result.best == result.choices[0].candidate
    assert max(candidate.latency_ms["pi"] for candidate in result) <= limits[0]


def test_common_constraints_hold_for_every_alternative() -> None:
    result = _search(
        latency={"pi": LATENCY},
        constraints=[Constraint(metric="params", limit=12_000)],
        alternatives=[[_within(1.0)], [_within(0.5)]],
    )

    assert all(choice.candidate.params <= 12_000 for choice in result.choices)
    assert [choice.constraints[0].metric for choice in result.choices] == ["params", "params"]


def test_one_alternative_out_of_reach_is_refused_by_name() -> None:
    with pytest.raises(InfeasibleError, match="meets latency on pi <= 1 us: the least reachable is 149 us"):
        _search(latency={"pi": LATENCY}, alternatives=[[_within(1.0)], [_within(0.001)]])


def test_one_for_all_devices_is_the_joint_choice_beside_one_for_each() -> None:
    slow = AdditiveMetric(SPACE, lambda layer: 1.0 + layer.in_chs * layer.kernel_size)
    a, b = _within(float(np.median(LATENCY(EVERY)))), _within(float(np.median(slow(EVERY))), "pixel")

    result = _search(latency={"pi": LATENCY, "pixel": slow}, alternatives=[[a, b], [a], [b]])

    joint, on_pi, on_pixel = (choice.candidate.accuracy for choice in result.choices)
    fits_pi, fits_pixel = LATENCY(EVERY) <= a.limit, slow(EVERY) <= b.limit
    best = [_accuracy(EVERY)[fits].max() for fits in (fits_pi & fits_pixel, fits_pi, fits_pixel)]
    assert [joint, on_pi, on_pixel] == best
    assert joint < min(on_pi, on_pixel)


def test_a_limit_of_size_is_four_bytes_a_parameter() -> None:
    best = _search(constraints=[Constraint(metric="size_bytes", limit=50_000)]).best

    assert best.size_bytes == 4 * best.params <= 50_000
    assert best.accuracy == _accuracy(EVERY)[4 * PARAMS(EVERY) <= 50_000].max()


def test_a_limit_of_memory_holds_for_the_worst_moment_of_the_plan() -> None:
    memory = 4 * PeakMetric(SPACE, peak_activations)(EVERY)
    limit = float(np.median(memory))

    result = _search(constraints=[Constraint(metric="memory_bytes", limit=limit)])

    assert result.best.memory_bytes == 4 * count(plan(SPACE, result.best.subnet)).peak_activations <= limit
    assert result.best.accuracy == _accuracy(EVERY)[memory <= limit].max()
    assert (result.limits[0].least, result.limits[0].greatest) == (memory.min(), memory.max())


def test_memory_below_reach_names_the_least() -> None:
    least = 4 * int(PeakMetric(SPACE, peak_activations)(EVERY).min())

    with pytest.raises(
        InfeasibleError, match=rf"meets activation memory <= 1 kB: the least reachable is {least / 1e3}"
    ):
        _search(constraints=[Constraint(metric="memory_bytes", limit=1000)])


def test_memory_may_be_an_objective() -> None:
    objectives = [Objective(metric="accuracy", direction="max"), Objective(metric="memory_bytes", direction="min")]

    front = list(_search(objectives=objectives))

    assert front[0].memory_bytes == 4 * PeakMetric(SPACE, peak_activations)(EVERY).min()


def test_a_limit_with_confidence_holds_with_its_margin() -> None:
    limit = float(np.median(LATENCY(EVERY)))
    upper = LATENCY(EVERY) + 1.2815515655446004 * SIGMA(EVERY)

    result = _search(latency={"pi": LATENCY}, latency_sigma={"pi": SIGMA}, constraints=[_within(limit, confidence=0.9)])

    best = result.best
    assert best.latency_ms["pi"] + 1.2815515655446004 * best.latency_sigma_ms["pi"] <= limit
    assert best.accuracy == _accuracy(EVERY)[upper <= limit].max()
    assert result.limits[0].least == pytest.approx(upper.min())
    assert result.limits[0].constraint.describe().endswith("at 90 % confidence")


def test_a_confident_limit_out_of_reach_names_the_least_that_holds_with_confidence() -> None:
    least = (LATENCY(EVERY) + 1.2815515655446004 * SIGMA(EVERY)).min()

    with pytest.raises(
        InfeasibleError, match=f"at 90 % confidence: the least reachable is {np.ceil(1000 * least):.0f} us"
    ):
        _search(latency={"pi": LATENCY}, latency_sigma={"pi": SIGMA}, constraints=[_within(0.15, confidence=0.9)])


@pytest.mark.parametrize("sigmas", [0.5, 1.28, 3.0])
def test_the_least_upper_bound_is_that_of_brute_force(sigmas: float) -> None:
    # Layers whose errors have no order, so that the fastest network is not the surest.
    noise = AdditiveMetric(SPACE, lambda layer: float(np.random.default_rng(list(layer.key.encode())).random()) / 50)
    upper = SigmaMetric(LATENCY, noise, rel_sigma=0.1).upper(sigmas)

    assert upper.minimum().value == pytest.approx(upper(EVERY).min(), rel=1e-12)
    assert upper.maximum().value >= upper(EVERY).max()


def test_confidence_needs_an_error() -> None:
    with pytest.raises(InputError, match="the latency of pi states no error; leave confidence out"):
        _search(latency={"pi": LATENCY}, constraints=[_within(1.0, confidence=0.9)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"confidence": 1.0}, "the confidence is 1.0; expected at least 0.5 and less than 1"),
        ({"confidence": 0.1}, "expected at least 0.5"),
        ({"metric": "macs", "device": None, "confidence": 0.9}, "MACs has no error"),
    ],
)
def test_confidence_without_meaning_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Constraint(**{"metric": "latency_ms", "limit": 1.0, "device": "pi", **fields})


def test_fixed_genes_hold_on_the_whole_front_and_members_are_of_the_whole_space() -> None:
    result = _search(fixed={"resolution": 24, "kernel_size": 3}, latency={"pi": lambda codes: LATENCY(codes)})

    assert all(c.subnet.resolution == 24 and set(c.subnet.kernel_size) == {3} for c in result)
    inside = EVERY[[net.resolution == 24 and set(net.kernel_size) == {3} for net in SPACE.decode(EVERY)]]
    assert result.best.accuracy == _accuracy(inside).max()
    for candidate in result:
        SPACE.validate(candidate.subnet)
        assert candidate.macs == count(plan(SPACE, candidate.subnet)).macs


def test_a_limit_below_what_the_fixed_genes_allow_says_so() -> None:
    with pytest.raises(InfeasibleError, match="space 'small with resolution=32' meets MACs <= 50k"):
        _search(fixed={"resolution": 32}, constraints=[Constraint(metric="macs", limit=50_000)])


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown algorithm 'nsga3'; did you mean 'nsga2'"):
        _search(algorithm="nsga3")


@pytest.mark.parametrize("algorithm", ["nsga2", "aging", "random", "alphanet"])
def test_every_algorithm_keeps_the_limits_and_the_budget(algorithm: str) -> None:
    result = _search(
        algorithm=algorithm, evaluations=400, population=40, constraints=[Constraint(metric="macs", limit=300e3)]
    )

    assert result.algorithm == algorithm
    assert result.evaluations == 400
    assert all(candidate.macs <= 300e3 for candidate in result)


def test_either_an_accuracy_or_an_evaluator_is_needed() -> None:
    with pytest.raises(InputError, match="either accuracy .* or evaluator"):
        search(SPACE)
    with pytest.raises(InputError, match="either accuracy .* or evaluator"):
        search(SPACE, accuracy=_accuracy, evaluator=lambda subnets: [1.0 for _ in subnets])


def test_an_evaluator_is_guided_and_spends_few_evaluations() -> None:
    asked: list[Any] = []

    def evaluator(subnets: Any) -> list[float]:
        asked.extend(subnets)
        return [float(_accuracy(SPACE.encode([net]))[0]) for net in subnets]

    result = search(SPACE, evaluator=evaluator)

    assert (result.algorithm, result.population) == ("guided", 16)
    assert len(asked) == len(set(asked)) == result.evaluations == 200


def test_polishing_within_a_tight_limit_is_no_worse_and_keeps_the_budget() -> None:
    space = load_space("attentivenas")
    weights = np.random.default_rng(3).random(len(space.genes))

    def accuracy(codes: Any) -> Any:
        return 60 + np.sqrt(codes) @ weights

    constraint = Constraint(metric="macs", limit=260e6)
    polished = search(space, accuracy=accuracy, constraints=[constraint], evaluations=5000)
    plain = search(space, accuracy=accuracy, constraints=[constraint], evaluations=5000, algorithm="alphanet")

    assert polished.evaluations <= 5000
    assert polished.best.macs <= 260e6
    assert polished.best.accuracy >= plain.best.accuracy
    exact = search(space, accuracy=accuracy, constraints=[constraint], algorithm="exact")
    assert polished.best.accuracy > exact.best.accuracy - 0.1
