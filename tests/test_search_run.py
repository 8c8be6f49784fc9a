"""search(): the best candidate, limits that cannot be met, limits that do not bind, and what is refused."""

import json
import math
from typing import Any

import numpy as np
import pytest

from nas2edge import AdditiveMetric, LayerSpec, count, load_space, plan
from nas2edge.costs import count_macs, count_params
from nas2edge.errors import InfeasibleError, InputError, UnknownNameError
from nas2edge.search import Constraint, Objective, ParetoFront, codes_from_evaluator, search
from nas2edge.search.limits import Metric, rounded_up, summary
from nas2edge.search.pareto_file import AccuracySource, Origin, TableSource, chosen_subnet, pareto_to_dict
from nas2edge.space import Codes
from nas2edge.subnet_file import read_subnet, write_subnet
from tests.search_spaces import every_code, small_space

SPACE = small_space()
MACS = AdditiveMetric(SPACE, count_macs)


def _latency_of(layer: LayerSpec) -> float:
    return count_macs(layer) / 1e6 + 0.01 * layer.kernel_size


LATENCY = AdditiveMetric(SPACE, _latency_of)


def _accuracy(codes: Codes) -> Any:
    return 60.0 + np.sqrt(codes + 0.1 * np.arange(codes.shape[1])).sum(axis=1)


def _search(**changes: Any) -> Any:
    return search(SPACE, **{"accuracy": _accuracy, "evaluations": 3000, "population": 50, **changes})


def test_best_is_the_most_accurate_of_all_that_keep_the_limits() -> None:
    codes = every_code(SPACE)
    limit = float(np.median(LATENCY(codes)))
    params = AdditiveMetric(SPACE, count_params)(codes)
    allowed = (LATENCY(codes) <= limit) & (params <= 15_000)
    constraints = [
        Constraint(metric="latency_ms", limit=limit, device="pi"),
        Constraint(metric="params", limit=15_000),
    ]

    result = _search(latency={"pi": LATENCY}, constraints=constraints)

    assert result.stop == "exhausted"
    assert result.best.accuracy == _accuracy(codes[allowed]).max()
    assert all(c.latency_ms["pi"] <= limit and c.params <= 15_000 for c in result.front)
    assert result.evaluations == allowed.sum() < result.examined == SPACE.size


def test_a_candidate_carries_the_costs_of_its_plan() -> None:
    best = _search().best

    costs = count(plan(SPACE, best.subnet))
    assert (best.macs, best.params) == (costs.macs, costs.params)
    assert best.accuracy == _accuracy(SPACE.encode([best.subnet]))[0]


def test_without_a_device_accuracy_is_traded_against_macs() -> None:
    result = _search()

    assert [(o.metric, o.direction) for o in result.front.objectives] == [("accuracy", "max"), ("macs", "min")]
    assert result.best == list(result.front)[-1]


def test_every_device_is_an_objective_and_a_column() -> None:
    slow = AdditiveMetric(SPACE, lambda layer: 1.0 + layer.in_chs)
    sigma = {"pi": lambda codes: np.full(len(codes), 0.5)}

    result = _search(latency={"pi": LATENCY, "pixel": slow}, latency_sigma=sigma)

    assert [o.device for o in result.front.objectives] == [None, "pi", "pixel"]
    assert set(result.best.latency_ms) == {"pi", "pixel"}
    assert result.best.latency_sigma_ms == {"pi": 0.5}


@pytest.mark.parametrize("guided", [False, True])
def test_equal_seeds_give_equal_results(guided: bool) -> None:
    a, b = (_search(evaluations=100, population=10, seed=3, guided=guided) for _ in range(2))

    assert a == b
    assert a.evaluations == 100


def test_a_limit_below_reach_names_the_closest_value_and_its_network() -> None:
    assert count(plan(SPACE, SPACE.smallest())).macs == 48_768

    with pytest.raises(InfeasibleError) as caught:
        _search(constraints=[Constraint(metric="macs", limit=40_000)])

    assert str(caught.value) == (
        "no sub-network of the space 'small' meets MACs <= 40k: the least reachable is 48.77k, "
        f"by {summary(SPACE.smallest())}; allow at least 48.77k"
    )
    assert caught.value.exit_code == 7
    _search(constraints=[Constraint(metric="macs", limit=48_770)])


def test_of_several_limits_below_reach_the_tightest_is_named() -> None:
    constraints = [
        Constraint(metric="macs", limit=40_000),
        Constraint(metric="latency_ms", limit=0.001, device="pi"),
    ]

    with pytest.raises(InfeasibleError, match=r"meets latency on pi <= 1 us.*\(1 more of the limits cannot be met"):
        _search(latency={"pi": LATENCY}, constraints=constraints)


@pytest.mark.parametrize("guided", [False, True])
def test_limits_that_cannot_be_met_together_end_with_the_closest(guided: bool) -> None:
    # The second device is slower the faster the first one is, so that one of the two limits always breaks.
    opposite: Metric = lambda codes: 2.0 * LATENCY.maximum().value - LATENCY(codes)  # noqa: E731
    limit = LATENCY.minimum().value * 1.01
    constraints = [
        Constraint(metric="latency_ms", limit=limit, device="pi"),
        Constraint(metric="latency_ms", limit=limit, device="pixel"),
    ]

    with pytest.raises(InfeasibleError, match="meets all constraints together, of .* examined.*pixel.* % over"):
        _search(latency={"pi": LATENCY, "pixel": opposite}, constraints=constraints, evaluations=200, guided=guided)


def test_a_limit_of_an_opaque_metric_is_missed_only_after_searching() -> None:
    constraint = Constraint(metric="latency_ms", limit=0.1, device="pi")

    with pytest.raises(InfeasibleError, match="was found that meets latency on pi <= 100 us, of .*: 149 us, 49 % over"):
        _search(latency={"pi": lambda codes: LATENCY(codes)}, constraints=[constraint])


def test_a_limit_beyond_reach_is_said_not_to_bind() -> None:
    constraints = [Constraint(metric="macs", limit=1e9), Constraint(metric="params", limit=12_000)]

    loose, tight = _search(constraints=constraints).limits

    assert (loose.binds, tight.binds) == (False, True)
    assert loose.greatest == MACS.maximum().value
    assert loose.describe() == "MACs <= 1G does not bind: no sub-network of the space needs more than 2.173M"
    assert tight.describe() == "parameters <= 12k"


def test_whether_a_limit_on_an_opaque_metric_binds_is_unknown() -> None:
    constraint = Constraint(metric="latency_ms", limit=1e9, device="pi")

    (limit,) = _search(latency={"pi": lambda codes: LATENCY(codes)}, constraints=[constraint]).limits

    assert (limit.least, limit.greatest, limit.binds) == (None, None, None)


def test_a_custom_objective_takes_part() -> None:
    objectives = [Objective(metric="accuracy", direction="max"), Objective(metric="params", direction="min")]

    front = list(_search(objectives=objectives).front)

    assert [c.params for c in front] == sorted(c.params for c in front)
    assert front[0].params == AdditiveMetric(SPACE, count_params).minimum().value


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"evaluations": 0}, InputError, "evaluations is 0; expected at least 1"),
        ({"evaluations": -3}, InputError, "evaluations is -3; expected at least 1"),
        ({"seed": -1}, InputError, "seed is -1; expected zero or a positive number"),
        ({"population": 1}, InputError, "population is 1; expected at least 2"),
        ({"objectives": [Objective(metric="macs", direction="min")]}, InputError, "the objectives lack accuracy"),
        (
            {"constraints": [Constraint(metric="latency_ms", limit=1.0, device="pie")], "latency": {"pi": LATENCY}},
            UnknownNameError,
            "unknown device 'pie'; did you mean 'pi'",
        ),
        ({"accuracy": lambda codes: np.full(len(codes), math.nan)}, InputError, "accuracy .*has the value nan"),
        ({"accuracy": lambda codes: np.zeros(1)}, InputError, "has shape"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], error: type[InputError], message: str) -> None:
    with pytest.raises(error, match=message):
        _search(**changes)


def test_an_evaluator_of_subnets_serves_as_a_metric() -> None:
    metric = codes_from_evaluator(SPACE, lambda subnets: [float(subnet.resolution) for subnet in subnets])

    assert metric(every_code(SPACE)[[0, -1]]).tolist() == [16.0, 32.0]


def test_summary_holds_every_gene() -> None:
    space = load_space("attentivenas")

    assert summary(space.smallest()) == (
        "r192 w16-16-24-32-64-112-192-216-1792 d1-3-3-3-3-3-1 k3-3-3-3-3-3-3 e1-4-4-4-4-6-6"
    )


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [("latency_ms", 7.0412, 7.05), ("latency_ms", 7.05, 7.05), ("macs", 203_389_568, 203_400_000), ("macs", 9, 9)],
)
def test_rounding_up_never_goes_below(metric: str, value: float, expected: float) -> None:
    assert rounded_up(metric, value) == pytest.approx(expected, rel=1e-12)


def _origin(supernet: dict[str, str] | None = None) -> Origin:
    return Origin(
        space=SPACE,
        accuracy=AccuracySource(source="supernet", error=1.5, note="a test"),
        tables={"pi": TableSource(kind="estimated", digest="abc"), "pixel": TableSource(kind="measured", digest="def")},
        supernet=supernet,
    )


def test_pareto_json_holds_every_point_and_what_it_takes_to_repeat_it() -> None:
    constraint = Constraint(metric="latency_ms", limit=0.5, device="pixel")
    result = _search(latency={"pi": LATENCY, "pixel": LATENCY}, constraints=[constraint])

    document = json.loads(json.dumps(pareto_to_dict(result, _origin({"source": "run", "sha256": "00"}))))

    assert (document["format"], document["version"]) == ("nas2edge.pareto", 1)
    assert document["space"] == json.loads(json.dumps(SPACE.to_dict()))
    assert document["devices"]["pi"] == {"kind": "estimated", "digest": "abc"}
    assert document["constraints"][0]["binds"] is True
    assert document["search"] == {
        "seed": 0, "population": 50, "evaluations": result.evaluations, "examined": SPACE.size, "stop": "exhausted",
        "algorithm": "nsga2", "exactness": None,
    }  # fmt: skip
    assert document["accuracy"] == {"source": "supernet", "error": 1.5, "note": "a test", "images": None}
    assert [point["id"] for point in document["points"]] == [c.subnet.id for c in result.front]
    assert document["best"] == document["points"][-1]["id"]
    assert document["choices"] == [
        {
            "id": document["best"],
            "constraints": [{"metric": "latency_ms", "limit": 0.5, "device": "pixel", "confidence": 0.5}],
        }
    ]


def test_the_chosen_subnet_reads_back_with_its_predictions(tmp_path: Any) -> None:
    constraints = [
        Constraint(metric="latency_ms", limit=0.5, device="pi"),
        Constraint(metric="latency_ms", limit=0.6, device="pixel"),
        Constraint(metric="macs", limit=1e6),
    ]
    result = _search(latency={"pi": LATENCY, "pixel": LATENCY}, constraints=constraints)

    write_subnet(tmp_path / "subnet.json", chosen_subnet(result, _origin()))

    file = read_subnet(tmp_path / "subnet.json")
    assert (file.space, file.subnet, file.device) == (SPACE, result.best.subnet, "pi")
    assert file.constraints == {"latency_ms": 0.5, "latency_ms:pixel": 0.6, "macs": 1e6}
    assert file.predicted["latency_ms"] == file.predicted["latency_ms:pixel"] == result.best.latency_ms["pi"]
    assert (file.predicted["latency_kind"], file.predicted["latency_kind:pixel"]) == ("estimated", "measured")
    assert (file.predicted["accuracy"], file.predicted["accuracy_source"]) == (result.best.accuracy, "supernet")


def test_the_result_is_a_front() -> None:
    result = _search()

    assert ParetoFront in type(result).__mro__
    assert list(result) == list(result.front) == list(result.candidates)
    assert len(result.extend([result.best])) == len(result)
