"""The gate's decisions, on a made-up machine with drift and bursts: no false alarms, slowdowns found, budget kept."""

import math
from collections import Counter

import numpy as np
import pytest

from nas2edge.bench.gate import FAILED, INCONCLUSIVE, PASSED, Comparison, Rule, compare, decide
from nas2edge.bench.measure import Round, turns
from nas2edge.bench.stats import Interval
from nas2edge.errors import InputError
from tests.noisy_machine import NoisyMachine


def run(machine: NoisyMachine, rule: Rule):
    return decide(machine.round, rule, clock=machine.clock)


def verdicts(ratio: float, rule: Rule, n: int) -> Counter[str]:
    return Counter(run(NoisyMachine(ratio, seed=seed), rule).verdict for seed in range(n))


def test_equal_networks_never_fail_and_mostly_pass():
    found = verdicts(1.0, Rule(max_slowdown=0.02, budget_s=60.0), 200)

    assert found[FAILED] == 0
    assert found[PASSED] > 190


def test_one_after_the_other_cries_wolf_on_the_same_machine():
    """The same limit on the quotient of two medians that were taken apart."""
    machines = [NoisyMachine(1.0, seed=seed) for seed in range(200)]

    assert sum(machine.alone(1.0) / machine.alone(1.0) > 1.02 for machine in machines) > 50


@pytest.mark.parametrize(("ratio", "budget_s"), [(1.05, 120.0), (1.10, 60.0), (1.20, 60.0)])
def test_planted_slowdowns_are_found(ratio, budget_s):
    found = verdicts(ratio, Rule(max_slowdown=0.02, budget_s=budget_s), 60)

    assert found[FAILED] >= 57
    assert found[PASSED] == 0


def test_a_network_at_the_limit_is_not_called_a_regression_lightly():
    """Its interval lies wholly above the limit in some 3 % of looks, and a rerun must agree."""
    assert verdicts(1.05, Rule(max_slowdown=0.05, budget_s=24.0), 60)[FAILED] <= 1


def test_a_faster_network_passes():
    assert verdicts(0.9, Rule(max_slowdown=0.0, budget_s=60.0), 20)[PASSED] == 20


def test_the_budget_is_kept_and_a_failure_has_a_rerun_of_its_own():
    machine = NoisyMachine(1.1, seed=1)
    decision = run(machine, Rule(max_slowdown=0.02, budget_s=60.0))

    assert decision.verdict == FAILED
    assert decision.comparison is not None and decision.confirmation is not None
    assert len(decision.rounds) == decision.comparison.rounds + decision.confirmation.rounds
    assert decision.seconds == machine.now <= 60.0


def test_a_failure_without_time_for_a_rerun_is_inconclusive():
    decision = run(NoisyMachine(1.2, jitter=0.0, drift=0.0, bursts=0.0), Rule(max_slowdown=0.02, budget_s=9.0))

    assert decision.verdict == INCONCLUSIVE
    assert "before a rerun could confirm" in decision.reason


def test_a_failure_that_a_rerun_does_not_confirm_is_inconclusive():
    slow, same = NoisyMachine(1.2, seed=0), NoisyMachine(1.0, seed=0)
    taken: list[Round] = []

    def next_round() -> Round:
        taken.append(slow.round() if len(taken) < 3 else same.round())
        return taken[-1]

    decision = decide(next_round, Rule(max_slowdown=0.05, budget_s=1e6), clock=lambda: float(len(taken)))

    assert decision.verdict == INCONCLUSIVE
    assert "a rerun does not confirm" in decision.reason


def test_a_budget_for_too_few_rounds_is_said():
    assert "fewer than 3 rounds" in run(NoisyMachine(1.0), Rule(max_slowdown=0.05, budget_s=1.0)).reason
    decision = run(NoisyMachine(1.0), Rule(max_slowdown=0.05, budget_s=5.0))
    assert decision.verdict == INCONCLUSIVE
    assert "held 2 rounds, and a verdict needs 3" in decision.reason


def test_too_much_noise_is_inconclusive_not_a_guess():
    machine = NoisyMachine(1.0, process=0.2, seed=3)
    decision = run(machine, Rule(max_slowdown=0.01, budget_s=20.0))

    assert decision.verdict == INCONCLUSIVE
    assert "the interval holds the limit" in decision.reason
    assert machine.now <= 20.0


def test_the_control_widens_the_interval_by_what_it_is_off():
    """The old network's second process is 4 % slower throughout; the new one is as fast as the mean of both."""
    logs = np.zeros((3, 12))
    logs[1], logs[2] = 0.02, 0.04
    found = compare([Round(logs=logs)] * 3)

    assert found.control.estimate == pytest.approx(math.exp(0.04))
    assert found.ratio.estimate == pytest.approx(1.0)
    assert (found.ratio.low, found.ratio.high) == pytest.approx((math.exp(-0.04), math.exp(0.04)))


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.9, 1.04, PASSED), (1.06, 1.2, FAILED), (1.04, 1.06, INCONCLUSIVE)]
)
def test_a_verdict_needs_the_whole_interval(low, high, verdict):
    control = Interval(estimate=1.0, low=1.0, high=1.0)
    found = Comparison(ratio=Interval(estimate=(low + high) / 2, low=low, high=high), control=control, rounds=3)

    assert found.verdict(0.05) == verdict


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_slowdown": 0.05, "budget_s": 0.0}, "the budget is 0 s; expected a positive number"),
        ({"max_slowdown": 0.05, "budget_s": -1.0}, "the budget is -1 s"),
        ({"max_slowdown": -0.1}, "the greatest slowdown is -0.1; expected 0 or more"),
        ({"max_slowdown": 0.05, "min_rounds": 1}, "an interval needs 2 rounds"),
    ],
)
def test_rules_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        Rule(**settings)


@pytest.mark.parametrize("artefacts", [1, 2, 3, 4])
def test_turns_go_there_and_back_and_every_artefact_stands_everywhere(artefacts):
    orders = [turns(artefacts, cycle) for cycle in range(artefacts)]

    assert all(order == order[::-1] and sorted(order) == sorted([*range(artefacts)] * 2) for order in orders)
    assert sorted(order[0] for order in orders) == [*range(artefacts)]
