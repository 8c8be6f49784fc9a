"""Packaging: what stands in pyproject.toml is what is on disk."""

import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def folder_of(package: str) -> Path:
    """Where a package lies, by the longest matching entry of package-dir."""
    known = SETTINGS["package-dir"]
    base = max((name for name in known if package == name or package.startswith(f"{name}.")), key=len)
    return ROOT.joinpath(known[base], *package.removeprefix(base).split(".")[1:])


def test_every_package_on_disk_is_listed():
    on_disk = {
        path.parent for top in ("nas2edge", "exporters", "latency_tables") for path in (ROOT / top).rglob("__init__.py")
    }

    assert {folder_of(package) for package in SETTINGS["packages"]} == on_disk


def test_packages_are_listed_once_and_in_order():
    assert SETTINGS["packages"] == sorted(set(SETTINGS["packages"]))


@pytest.mark.parametrize(("package", "patterns"), SETTINGS["package-data"].items())
def test_every_pattern_of_package_data_matches_something(package, patterns):
    for pattern in patterns:
        assert list(folder_of(package).glob(pattern)), f"{package}: {pattern}"


def test_data_files_are_covered_by_a_pattern():
    """A data file that no pattern matches works in a checkout and is missing from the wheel."""
    covered = {
        path
        for package, patterns in SETTINGS["package-data"].items()
        for pattern in patterns
        for path in folder_of(package).glob(pattern)
    }
    data = {
        path
        for top in ("nas2edge", "exporters", "latency_tables")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".partial") and path.parent.name != "__pycache__"
    }

    assert data <= covered
