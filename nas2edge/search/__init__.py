"""Search: from a space, an accuracy and costs to the sub-networks worth deploying. Needs numpy alone.

>>> result = search(space, accuracy=accuracy, latency={"pi": metric}, constraints=constraints, evaluations=50_000)
>>> result.best.subnet
"""

from nas2edge.search.front import Candidate as Candidate
from nas2edge.search.front import ParetoFront as ParetoFront
from nas2edge.search.objective import Constraint as Constraint
from nas2edge.search.objective import Objective as Objective
