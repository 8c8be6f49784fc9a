"""What the package exports: just what it says, all of it documented."""

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
    public = [name for name, value in vars(nas2edge).items() if not name.startswith("_") and not is_own_module(value)]

    assert nas2edge.__all__ == sorted([*public, "__version__"])


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
