"""Objectives, constraints, and fronts that do not depend on the order in which they were filled."""

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas2edge.errors import InputError
from nas2edge.search import Candidate, Constraint, Objective, ParetoFront
from tests.search_spaces import every_code, small_space

ACCURACY = Objective(metric="accuracy", direction="max")
MACS = Objective(metric="macs", direction="min")
LATENCY = Objective(metric="latency_ms", direction="min", device="pi")
SUBNETS = small_space().decode(every_code(small_space())[::100])


def _candidate(accuracy: int, macs: int, latency: int = 1, subnet: int = 0) -> Candidate:
    return Candidate(subnet=SUBNETS[subnet], accuracy=accuracy, macs=macs, params=1, latency_ms={"pi": latency})


candidates = st.lists(
    st.builds(_candidate, st.integers(0, 4), st.integers(0, 4), st.integers(0, 2), st.integers(0, 5)), max_size=15
)


@given(candidates, st.randoms())
@settings(max_examples=100, deadline=None)
def test_order_of_insertion_never_matters(pool: list[Candidate], random: Random) -> None:
    shuffled = random.sample(pool, len(pool))
    front = ParetoFront(objectives=(ACCURACY, MACS, LATENCY))

    one_by_one = front
    for candidate in pool:
        one_by_one = one_by_one.add(candidate)

    assert one_by_one == front.extend(shuffled)


@given(candidates)
@settings(max_examples=100, deadline=None)
def test_front_holds_just_what_no_candidate_dominates(pool: list[Candidate]) -> None:
    front = ParetoFront(objectives=(ACCURACY, MACS)).extend(pool)

    values = {(c.accuracy, c.macs) for c in pool}
    expected = {
        (a, m) for a, m in values if not any(a2 >= a and m2 <= m and (a2, m2) != (a, m) for a2, m2 in values)
    }  # fmt: skip
    assert {(c.accuracy, c.macs) for c in front} == expected
    assert len(front) == len(expected)


def test_a_front_ascends_in_accuracy_and_in_cost() -> None:
    front = ParetoFront(objectives=(ACCURACY, MACS)).extend([_candidate(3, 9), _candidate(1, 2), _candidate(2, 5)])

    assert [c.accuracy for c in front] == [1, 2, 3]
    assert [c.macs for c in front] == [2, 5, 9]


def test_add_leaves_the_front_as_it_was() -> None:
    front = ParetoFront(objectives=(ACCURACY, MACS))

    larger = front.add(_candidate(1, 1))

    assert (len(front), len(larger)) == (0, 1)


def test_violation_is_the_share_above_the_limit() -> None:
    constraint = Constraint(metric="macs", limit=100.0)

    assert [constraint.violation(value) for value in (50.0, 100.0, 125.0)] == [0.0, 0.0, 0.25]


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (Constraint(metric="latency_ms", limit=20.0, device="pi"), "latency on pi <= 20 ms"),
        (Constraint(metric="macs", limit=3e8), "MACs <= 300M"),
        (Constraint(metric="params", limit=5e6), "parameters <= 5M"),
    ],
)
def test_constraints_read_with_their_unit(constraint: Constraint, text: str) -> None:
    assert constraint.describe() == text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"metric": "energy", "limit": 1.0},
            "the metric is 'energy'; expected one of latency_ms, energy_mj, macs, params",
        ),
        ({"metric": "accuracy", "limit": 1.0}, "the metric is 'accuracy'"),
        ({"metric": "latency_ms", "limit": 1.0}, "latency_ms and energy_mj need one"),
        ({"metric": "macs", "limit": 1.0, "device": "pi"}, "the others none"),
        ({"metric": "macs", "limit": 0.0}, "expected a number > 0"),
        ({"metric": "macs", "limit": np.nan}, "expected a number > 0"),
    ],
)
def test_constraints_without_meaning_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Constraint(**fields)


def test_an_objective_has_a_direction() -> None:
    with pytest.raises(InputError, match="expected 'max' or 'min'"):
        Objective(metric="macs", direction="down")  # type: ignore[arg-type]  # on purpose
