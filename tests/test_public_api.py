"""What the package exports: just what it says, all of it documented."""

import importlib
import inspect
from types import ModuleType

import pytest

import nas2edge


def is_own_module(value: object) -> bool:
    return isinstance(value, ModuleType) and value.__name__.startswith("nas2edge.")


def members(kind: type) -> dict[str, object]:
    """Methods and properties that the class itself defines."""
    found = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
    return {name: value for name, value in found.items() if callable(value) or hasattr(value, "__get__")}


def test_all_is_the_sorted_list_of_public_members():
    # "@": what pytest adds where it rewrites assertions, as it does in all of a distribution that has a plugin.
    hidden = ("_", "@")
    names = [name for name in vars(nas2edge) if not name.startswith(hidden)]
    public = [name for name in names if not is_own_module(vars(nas2edge)[name])]

    lazy = ["search"]  # a package of ours that is callable
    assert nas2edge.__all__ == sorted([*public, "__version__", *lazy])


def test_the_package_search_can_be_called_as_the_function_that_it_holds():
    space = nas2edge.load_space("tiny")
    macs = nas2edge.AdditiveMetric(space, lambda layer: float(layer.out_chs))

    result = nas2edge.search(space, accuracy=macs, evaluations=200)

    assert result == importlib.import_module("nas2edge.search").search(space, accuracy=macs, evaluations=200)


def test_an_attribute_that_is_not_there_is_told_as_usual():
    with pytest.raises(AttributeError, match="module 'nas2edge' has no attribute 'serach'"):
        nas2edge.serach  # noqa: B018  # on purpose


@pytest.mark.parametrize("name", [name for name in nas2edge.__all__ if name != "__version__"])
def test_every_export_is_documented(name):
    doc = getattr(nas2edge, name).__doc__

    assert doc
    assert not doc.startswith(f"{name}("), "the docstring that dataclasses make is none"


@pytest.mark.parametrize("kind", [kind for kind in vars(nas2edge).values() if inspect.isclass(kind)])
def test_every_member_of_an_exported_class_is_documented(kind):
    fields = set(getattr(kind, "__dataclass_fields__", ()))  # these stand in the docstring's Args

    assert not [name for name in members(kind).keys() - fields if not inspect.getdoc(getattr(kind, name))]
    assert not [name for name in fields if f" {name}: " not in (kind.__doc__ or "")]
