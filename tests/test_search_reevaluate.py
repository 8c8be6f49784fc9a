"""Predictor first, then the best on the supernet: what is evaluated, when it ends, and what candidates then say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from nas2edge import SubnetConfig
from nas2edge.search import Constraint, SearchResult, search
from nas2edge.search.predictor import Predictor
from nas2edge.search.predictor_fit import fit_predictor, fit_ridge, refit_predictor
from nas2edge.search.reevaluate import MAX_ROUNDS, best_of, reevaluate
from tests.search_spaces import every_code, small_space

SPACE = small_space()
GAIN = np.linspace(0.5, 1.5, len(SPACE.genes))
LIMITS = [[Constraint(metric="macs", limit=limit)] for limit in (600e3, 300e3)]


def _true(subnets: Sequence[SubnetConfig]) -> list[float]:
    return (60.0 + np.sqrt(SPACE.encode(subnets)) @ GAIN).tolist()


@pytest.fixture(scope="module")
def known() -> dict[SubnetConfig, float]:
    subnets = SPACE.decode(every_code(SPACE)[::37])
    return dict(zip(subnets, _true(subnets), strict=True))


@pytest.fixture(scope="module")
def predictor(known: Mapping[SubnetConfig, float]) -> Predictor:
    return fit_predictor(
        SPACE, SPACE.encode(known), list(known.values()), supernet_sha256="ab", images=100, kinds={"ridge": fit_ridge}
    )


def _search_by(accuracy: Any) -> SearchResult:
    return search(SPACE, accuracy=accuracy, alternatives=LIMITS, evaluations=3000)


def _refit(predictor: Predictor, measured: Mapping[SubnetConfig, float]) -> Predictor:
    return refit_predictor(predictor, SPACE.encode(measured), list(measured.values()))


def test_the_choices_come_first_then_the_next_best_of_each(predictor: Predictor) -> None:
    result = _search_by(predictor)

    best = best_of(result, 6)

    assert best[:2] == [choice.candidate.subnet for choice in result.choices]
    accuracy_of = {candidate.subnet: candidate.accuracy for candidate in result}
    macs_of = {candidate.subnet: candidate.macs for candidate in result}
    assert sorted(map(accuracy_of.__getitem__, best[2::2]), reverse=True) == [accuracy_of[s] for s in best[2::2]]
    assert sum(macs_of[subnet] <= 300e3 for subnet in best) >= 3


def test_it_ends_when_a_predictor_that_knows_them_chooses_among_those_evaluated(predictor, known) -> None:
    asked: list[SubnetConfig] = []

    def evaluate(subnets: Sequence[SubnetConfig]) -> list[float]:
        asked.extend(subnets)
        return _true(subnets)

    found = reevaluate(_search_by, predictor, known=known, evaluate=evaluate, refit=_refit, n=6)

    assert found.settled
    assert found.evaluations == len(set(asked)) == len(asked)
    assert found.predictor.samples == len(known) + len(asked)
    for choice in found.result.choices:
        assert choice.candidate.measured_accuracy == pytest.approx(_true([choice.candidate.subnet])[0])
    told = [c for c in found.result if c.measured_accuracy is not None]
    assert {c.subnet for c in told} == {c.subnet for c in found.result} & (set(known) | set(asked))
    assert all(c.accuracy_sigma is not None and c.accuracy_sigma > 0 for c in found.result)


def test_by_default_the_choices_alone_are_evaluated(predictor, known) -> None:
    rounds: list[Sequence[SubnetConfig]] = []

    def evaluate(subnets: Sequence[SubnetConfig]) -> list[float]:
        rounds.append(subnets)
        return _true(subnets)

    found = reevaluate(_search_by, predictor, known=known, evaluate=evaluate, refit=_refit)

    assert all(1 <= len(subnets) <= len(LIMITS) for subnets in rounds)
    assert all(choice.candidate.measured_accuracy is not None for choice in found.result.choices)


def test_with_0_nothing_is_evaluated(predictor, known) -> None:
    found = reevaluate(
        _search_by, predictor, known=known, evaluate=lambda _: pytest.fail("evaluated"), refit=_refit, n=0
    )

    assert (found.evaluations, found.rounds) == (0, 0)
    assert found.result.choices[0].constraints == tuple(LIMITS[0])


def test_a_choice_that_never_stands_is_evaluated_all_the_same(predictor, known) -> None:
    """Every refit here believes in other genes, so that its choice is new each time."""
    rng = np.random.default_rng(0)

    def fickle(_: Predictor, measured: Mapping[SubnetConfig, float]) -> Predictor:
        values = SPACE.encode(measured) @ rng.normal(size=len(SPACE.genes)) + 60
        return refit_predictor(predictor, SPACE.encode(measured), values)

    found = reevaluate(_search_by, predictor, known=known, evaluate=_true, refit=fickle, n=6)

    assert found.rounds <= MAX_ROUNDS
    assert all(choice.candidate.measured_accuracy is not None for choice in found.result.choices)
