"""nas2edge takes one trained weight-sharing supernet to many networks that run fast on edge devices.

What is imported here needs neither torch nor onnx:

>>> from nas2edge import load_space, plan, count
>>> space = load_space("attentivenas")
>>> count(plan(space, space.smallest())).macs
203389568
"""

from nas2edge._version import __version__
from nas2edge.additive import AdditiveMetric
from nas2edge.costs import Costs, count
from nas2edge.plan import LayerSpec, OpSpec, plan, unique_layers
from nas2edge.space import SearchSpace, StageSpace, SubnetConfig
from nas2edge.spaces import load_space

__all__ = [
    "AdditiveMetric",
    "Costs",
    "LayerSpec",
    "OpSpec",
    "SearchSpace",
    "StageSpace",
    "SubnetConfig",
    "__version__",
    "count",
    "load_space",
    "plan",
    "unique_layers",
]
