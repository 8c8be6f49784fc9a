"""The last step within a limit: from the best that was found, change one or two genes at a time as long as it helps.

Under a limit, what improves a network is mostly an exchange: a block less here for a wider stage there. Evolution of a
whole front seldom tries just that pair; there are only some thousand of them, so all are tried.
"""

from __future__ import annotations

import numpy as np

from nas2edge.search.any_space import AnySpace
from nas2edge.search.ledger import Evolved, Ledger, Problem
from nas2edge.space import Codes

_STARTS = 64
_MOST_NEIGHBOURS = 4096


def polish(problem: Problem, *, starts: Codes, evaluations: int, rng: np.random.Generator) -> Evolved:
    """Climbs from several sub-networks until no exchange of two genes is better, or the evaluations are spent.

    Args:
        problem: Of one objective.
        starts: Where to climb from, the best first; a few dozen are taken.
        evaluations: The greatest number of sub-networks to score.
        rng: Draws from the exchanges where there are very many.
    """
    ledger = Ledger(problem, evaluations=evaluations)
    for start in starts[:_STARTS]:
        here = ledger.admit(ledger.seen.unseen(start[None]))
        while len(here) and ledger.is_open:
            around = ledger.admit(ledger.seen.unseen(neighbours(problem.space, here.codes[0], rng=rng)))
            both = here.then(around)
            # Limits first; a start outside them climbs back into them.
            best = int(np.lexsort((np.nan_to_num(both.scores[:, 0], nan=np.inf), both.violation))[0])
            if best == 0:
                break
            here = both.take(np.array([best]))
    return ledger.result()


def neighbours(space: AnySpace, code: Codes, *, rng: np.random.Generator) -> Codes:
    """Returns the members that differ from one in one gene or two: shape (n, genes); of very many, a random part.

    Args:
        code: The member: shape (genes,).
    """
    columns = np.repeat(np.arange(len(code)), space.cardinalities)
    values = np.concatenate([np.arange(n) for n in space.cardinalities.tolist()])
    other = values != code[columns]
    columns, values = columns[other], values[other]
    first, second = np.triu_indices(len(columns))  # a change with itself is that one change
    apart = (columns[first] != columns[second]) | (first == second)
    first, second = first[apart], second[apart]
    if len(first) > _MOST_NEIGHBOURS:
        drawn = rng.choice(len(first), size=_MOST_NEIGHBOURS, replace=False)
        first, second = first[drawn], second[drawn]
    rows = np.repeat(code[None], len(first), axis=0)
    every = np.arange(len(first))
    rows[every, columns[first]] = values[first]
    rows[every, columns[second]] = values[second]
    return rows
