"""Search: from a space, an accuracy and costs to the sub-networks worth deploying. Needs numpy alone.

>>> result = search(space, accuracy=accuracy, latency={"pi": table}, constraints=constraints, evaluations=50_000)
>>> result.best.subnet

The module itself is callable: `nas2edge.search(space, ...)` is `nas2edge.search.search(space, ...)`.
"""

import sys
from types import ModuleType

from nas2edge.search.any_space import Space
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
    "Space",
    "codes_from_evaluator",
    "search",
]


class _CallableModule(ModuleType):
    __call__ = staticmethod(search)


sys.modules[__name__].__class__ = _CallableModule
