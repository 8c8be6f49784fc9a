"""Searching spaces of other kinds: whatever has a size, decodes codes and plans."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import nas2edge
from nas2edge.costs import count
from nas2edge.errors import InfeasibleError, InputError, SpaceError
from nas2edge.plan import OpSpec
from nas2edge.search import Constraint, Objective, Space
from nas2edge.space import Codes


@dataclass(frozen=True)
class Conv:
    """A plain convolution: what costs read of a layer."""

    in_chs: int
    out_chs: int
    hw_in: int
    shortcut: str = "none"

    @property
    def ops(self) -> tuple[OpSpec, ...]:
        return (
            OpSpec(
                name="conv", in_chs=self.in_chs, out_chs=self.out_chs, kernel_size=3, hw_in=self.hw_in,
                hw_out=self.hw_in, bias=True,
            ),
        )  # fmt: skip


class Pyramids:
    """Chains of convolutions, each a member's width: no MBConv, no resolution, no stages."""

    name = "pyramids"
    widths = (4, 8, 16, 32)
    cardinalities = (4, 4, 4, 4, 4)
    size = 4**5

    def decode(self, codes: Codes) -> list[tuple[int, ...]]:
        return [tuple(self.widths[i] for i in row) for row in codes.tolist()]

    def plan(self, subnet: Any) -> list[Conv]:
        return [Conv(a, b, hw_in=16) for a, b in pairwise((3, *subnet))]


class Lengths:
    """Members by number alone: no genes."""

    size = 12

    def decode(self, codes: Codes) -> list[int]:
        return [1 + int(row[0]) for row in codes]

    def plan(self, subnet: Any) -> list[Conv]:
        return [Conv(8, 8, hw_in=8)] * subnet


def evaluator(subnets: Sequence[tuple[int, ...]]) -> list[float]:
    return [float(np.log(np.array(subnet)) @ [1.0, 2.0, 3.0, 2.0, 1.0]) for subnet in subnets]


SPACE = Pyramids()
EVERY = SPACE.decode(np.stack(np.unravel_index(np.arange(SPACE.size), SPACE.cardinalities), axis=1))
MACS = [count(SPACE.plan(subnet)).macs for subnet in EVERY]  # type: ignore[arg-type]


def test_they_are_spaces() -> None:
    assert isinstance(SPACE, Space)
    assert isinstance(Lengths(), Space)


def test_the_best_within_a_limit_is_found_by_listing() -> None:
    limit = float(np.median(MACS))

    result = nas2edge.search(
        SPACE, evaluator=evaluator, constraints=[Constraint(metric="macs", limit=limit)], evaluations=2000
    )

    allowed = [subnet for subnet, macs in zip(EVERY, MACS, strict=True) if macs <= limit]
    assert result.stop == "exhausted"
    assert result.best.accuracy == max(evaluator(allowed))
    assert result.best.macs == count(SPACE.plan(result.best.subnet)).macs <= limit  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ["nsga2", "aging", "random", "alphanet", None])
def test_every_algorithm_searches_them(algorithm: str | None) -> None:
    def latency(codes: Codes) -> np.ndarray:
        return 1.0 + codes.sum(axis=1)

    results = [
        nas2edge.search(
            SPACE,
            evaluator=evaluator,
            latency={"board": latency},
            constraints=[Constraint(metric="latency_ms", limit=12.0, device="board")],
            algorithm=algorithm,
            evaluations=150,
            population=20,
            seed=3,
        )
        for _ in range(2)
    ]

    assert results[0] == results[1]
    assert results[0].best.latency_ms["board"] <= 12.0
    assert results[0].evaluations == 150
    # Uniform draws reach 16.5 on average within the limit; the middle layers are worth most.
    assert results[0].best.accuracy > 18


def test_several_objectives_and_memory() -> None:
    goals = [
        Objective(metric="accuracy", direction="max"),
        Objective(metric="params", direction="min"),
        Objective(metric="memory_bytes", direction="min"),
    ]

    result = nas2edge.search(SPACE, evaluator=evaluator, objectives=goals, evaluations=300, population=20)

    assert len(result) > 5
    assert result.best.memory_bytes == 4 * max(c.in_chs * 256 + c.out_chs * 256 for c in SPACE.plan(result.best.subnet))


def test_members_without_genes_are_one_choice() -> None:
    result = nas2edge.search(Lengths(), evaluator=lambda subnets: [float(n) for n in subnets], evaluations=100)

    members: list[Any] = [candidate.subnet for candidate in result]
    assert members == list(range(1, 13))


def test_limits_out_of_reach_name_the_closest_member() -> None:
    with pytest.raises(InfeasibleError, match=r"'Lengths' was found that meets MACs <= 10, of 12 .*network 1\)"):
        nas2edge.search(
            Lengths(), evaluator=lambda subnets: [0.0] * len(subnets), constraints=[Constraint(metric="macs", limit=10)]
        )


def test_choices_cannot_be_fixed_by_name() -> None:
    with pytest.raises(InputError, match="in a SearchSpace alone"):
        nas2edge.search(SPACE, evaluator=evaluator, fixed={"0": 4})


def test_a_size_that_contradicts_the_genes_is_refused() -> None:
    class Wrong(Lengths):
        cardinalities = (3, 3)

    with pytest.raises(SpaceError, match=r"has the size 12 and the cardinalities \[3, 3\]"):
        nas2edge.search(Wrong(), evaluator=evaluator)
