"""nas2edge takes one trained weight-sharing supernet to many networks that run fast on edge devices.

What is imported here needs neither torch nor onnx:

>>> from nas2edge import load_space, plan, count
>>> space = load_space("attentivenas")
>>> count(plan(space, space.smallest())).macs
203389568
"""

import typing as _typing

from nas2edge._version import __version__
from nas2edge.additive import AdditiveMetric
from nas2edge.costs import Costs, count
from nas2edge.plan import LayerSpec, OpSpec, plan, unique_layers
from nas2edge.space import SearchSpace, StageSpace, SubnetConfig
from nas2edge.spaces import load_space

if _typing.TYPE_CHECKING:
    from nas2edge.search import search

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
    "search",
    "unique_layers",
]


def __getattr__(name: str) -> object:
    if name != "search":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Loaded when first asked for, since most commands do not search. The package is callable: see its docstring.
    import importlib

    return importlib.import_module("nas2edge.search")
