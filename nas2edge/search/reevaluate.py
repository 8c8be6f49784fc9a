"""Predictor first, then the best on the supernet: what was evaluated teaches the predictor, until its choice stands.

A search by a predictor compares predictions with predictions. What the supernet itself gave for a sub-network stands
beside its prediction, and never replaces it: one evaluation on a few thousand images is noisier than a model of
hundreds of them, and the greatest of many noisy values is no choice. Evaluations count through the predictor, which is
fitted to all of them.

>>> found = reevaluate(search_by, predictor, known=known, evaluate=evaluate, refit=refit, n=8)
>>> found.result.best.measured_accuracy
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nas2edge.search.front import Candidate
from nas2edge.search.limits import Metric
from nas2edge.search.predictor import Predictor
from nas2edge.search.run import Evaluator, SearchResult
from nas2edge.space import SubnetConfig

MAX_ROUNDS = 5

SearchBy = Callable[[Metric], SearchResult]
"""Searches with an accuracy; everything else is settled."""

Refit = Callable[[Predictor, Mapping[SubnetConfig, float]], Predictor]
"""Fits a predictor of the same kind to the accuracies of more sub-networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reevaluated:
    """What a search by a predictor found, once its best were evaluated.

    Args:
        result: The last search's result; candidates that were evaluated say so.
        predictor: Fitted to all evaluations.
        rounds: How often the best were evaluated.
        evaluations: Sub-networks that were evaluated for it.
        settled: Whether a predictor that knew them chose among those evaluated; False where `MAX_ROUNDS` ended it.
    """

    result: SearchResult
    predictor: Predictor
    rounds: int
    evaluations: int
    settled: bool


def reevaluate(
    search_by: SearchBy,
    predictor: Predictor,
    *,
    known: Mapping[SubnetConfig, float],
    evaluate: Evaluator,
    refit: Refit,
    n: int | None = None,
) -> Reevaluated:
    """Searches by a predictor, evaluates the n best, fits the predictor anew, and so on until its choices are known.

    Args:
        search_by: The search.
        predictor: To begin with.
        known: Accuracies of sub-networks that the predictor was fitted to.
        evaluate: Top-1 in percent of sub-networks; expensive.
        refit: Fits the predictor to all evaluations.
        n: Sub-networks of a front to evaluate in a round: the choices, then the next best for each; 0: none, None:
            the choices alone.
    """
    measured = dict(known)
    result, rounds, settled = search_by(predictor), 0, False
    while n != 0 and not settled and rounds < MAX_ROUNDS:
        missing = [subnet for subnet in best_of(result, n or len(result.choices)) if subnet not in measured]
        rounds += 1
        if not missing:
            settled = True
            break
        measured |= zip(missing, evaluate(missing), strict=True)
        if rounds < MAX_ROUNDS:  # the last are evaluated all the same, so that the choice is no mere prediction
            predictor = refit(predictor, measured)
            result = search_by(predictor)
            settled = all(choice.candidate.subnet in measured for choice in result.choices)
    return Reevaluated(
        result=with_evidence(result, predictor, measured),
        predictor=predictor,
        rounds=rounds,
        evaluations=len(measured) - len(known),
        settled=settled,
    )


def best_of(result: SearchResult, n: int) -> list[SubnetConfig]:
    """Returns the n sub-networks of a front that matter most: the choices, then in turn the next best for each."""
    ranked = [
        sorted(
            (c for c in result.front if all(c.value(limit) <= limit.limit for limit in choice.constraints)),
            key=lambda c: -c.accuracy,
        )
        for choice in result.choices
    ]
    best = dict.fromkeys(choice.candidate.subnet for choice in result.choices)
    for rank in range(len(result.front)):
        for candidates in ranked:
            if rank < len(candidates) and len(best) < n:
                best.setdefault(candidates[rank].subnet)
    return list(best)[:n]


def with_evidence(result: SearchResult, predictor: Predictor, measured: Mapping[SubnetConfig, float]) -> SearchResult:
    """Returns a result whose candidates state the errors of their predictions, and what the supernet gave for them."""
    subnets = list(dict.fromkeys([*(c.subnet for c in result), *(c.candidate.subnet for c in result.choices)]))
    errors = dict(zip(subnets, predictor.predict(predictor.space.encode(subnets))[1].tolist(), strict=True))

    def told(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        return tuple(
            replace(c, accuracy_sigma=errors[c.subnet], measured_accuracy=measured.get(c.subnet)) for c in candidates
        )

    chosen = told([choice.candidate for choice in result.choices])
    return replace(
        result,
        choices=tuple(replace(choice, candidate=c) for choice, c in zip(result.choices, chosen, strict=True)),
        candidates=told(result.candidates),
    )
