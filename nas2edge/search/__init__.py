"""Search: from a space, an accuracy and costs to the sub-networks worth deploying. Needs numpy alone.

>>> result = search(space, accuracy=accuracy, latency={"pi": metric}, constraints=constraints, evaluations=50_000)
>>> result.best.subnet
"""

from nas2edge.search.front import Candidate, ParetoFront
from nas2edge.search.limits import Limit
from nas2edge.search.objective import Constraint, Objective
from nas2edge.search.run import Choice, SearchResult, codes_from_evaluator, search

__all__ = [
    "Candidate",
    "Choice",
    "Constraint",
    "Limit",
    "Objective",
    "ParetoFront",
    "SearchResult",
    "codes_from_evaluator",
    "search",
]
