"""What the package exports: just what it says, all of it documented."""

import nas2edge


def test_all_is_sorted_and_is_all_there_is():
    public = {name for name in vars(nas2edge) if not name.startswith("_")}
    modules = {name for name in public if type(vars(nas2edge)[name]).__name__ == "module"}

    assert nas2edge.__all__ == sorted(nas2edge.__all__)
    assert public - modules <= set(nas2edge.__all__)
    assert all(hasattr(nas2edge, name) for name in nas2edge.__all__)


def test_every_export_is_documented():
    undocumented = [name for name in nas2edge.__all__ if name != "__version__" and not getattr(nas2edge, name).__doc__]

    assert not undocumented
