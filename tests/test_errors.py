"""Errors: the tree that is drawn is the tree there is, and messages say what to do next."""

import re

import pytest

from nas2edge import errors
from nas2edge.cli._main import EPILOG
from nas2edge.optional import require


def drawn_tree() -> dict[str, tuple[int, int | None]]:
    """Depth and exit code of each class in the module's drawing."""
    lines = re.findall(r"^( {4,})(\w+Error)\b(?: +(\d))?", errors.__doc__ or "", flags=re.MULTILINE)
    return {name: (len(indent) // 2 - 2, int(code) if code else None) for indent, name, code in lines}


def classes() -> list[type[errors.Nas2EdgeError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Nas2EdgeError)]


def test_the_tree_that_is_drawn_is_the_tree_there_is():
    depths = {name: depth for name, (depth, _) in drawn_tree().items()}

    assert depths == {kind.__name__: kind.mro().index(errors.Nas2EdgeError) for kind in classes()}


def test_the_exit_codes_that_are_drawn_are_those_there_are():
    drawn = {name: code for name, (_, code) in drawn_tree().items() if code is not None}

    assert drawn == {name: getattr(errors, name).exit_code for name in drawn}


def test_help_explains_every_exit_code():
    explained = {int(code) for code in re.findall(r"(\d+) ", EPILOG)}

    assert {kind.exit_code for kind in classes()} <= explained


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("pixle", ["pixel", "cpu"], "unknown device 'pixle'; did you mean 'pixel'?"),
        ("nano", ["jetson-orin-nano", "cpu"], "unknown device 'nano'; did you mean 'jetson-orin-nano'?"),
        ("x", ["pixel-b", "pixel-a"], "unknown device 'x'; did you mean 'pixel-a' or 'pixel-b'?"),
        ("zz", ["b", "a"], "unknown device 'zz'; known: a, b"),
        ("zz", "abcdefghijklm", "unknown device 'zz'; known: a, b, c, d, e, f, g, h, i, j, k, l, ..."),
        ("zz", [], "unknown device 'zz'"),
        ("", ["a"], "unknown device ''; known: a"),
    ],
)
def test_an_unknown_name_lists_the_nearest_or_else_all(name, known, message):
    assert str(errors.UnknownNameError("device", name, known)) == message


def test_an_unknown_name_says_where_the_list_is_and_whether_a_file_would_do():
    error = errors.UnknownNameError("space", "tny", ["tiny"], see="nas2edge show", suffix=".toml")

    assert str(error) == (
        "unknown space 'tny'; did you mean 'tiny'? (a file's path must end in .toml) (see: nas2edge show)"
    )


def test_the_first_missing_package_is_named_with_its_extra():
    with pytest.raises(errors.MissingDependencyError, match=r"flying needs no_such_wings.*'nas2edge\[train\]'"):
        require("json", "no_such_wings", "no_such_tail", extra="train", purpose="flying")


def test_what_is_installed_is_not_imported_by_asking_for_it():
    require("json", "this", extra="train", purpose="flying")
