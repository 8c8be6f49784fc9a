"""The root command: exit codes, one-line errors, cancelling."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

import nas2edge
from nas2edge import errors
from nas2edge.cli import main
from nas2edge.cli import show as show_module
from nas2edge.cli._common import use_threads
from nas2edge.spaces import load_space


def all_errors(kind=errors.Nas2EdgeError):
    return [kind, *(error for child in kind.__subclasses__() for error in all_errors(child))]


def test_the_version_is_printed():
    assert CliRunner().invoke(main, ["--version"]).stdout.strip() == f"nas2edge, version {nas2edge.__version__}"


def test_an_unknown_command_lists_the_nearest():
    result = CliRunner().invoke(main, ["sarch"])

    assert result.exit_code == 2
    assert result.stderr.strip() == "error: unknown command 'sarch'; did you mean 'search'? (see: nas2edge --help)"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError("said"), 2),
        (errors.MissingDependencyError("torch", extra="export", purpose="this"), 2),
        (errors.EngineNotBuiltError("said"), 3),
        (errors.ParityError("said"), 4),
        (errors.InfeasibleError("said"), 7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_ours_is_one_line_and_its_exit_code(monkeypatch, error, code):
    def fail(*args):
        raise error

    monkeypatch.setattr(show_module, "_space", fail)

    result = CliRunner().invoke(main, ["show"])

    assert result.exit_code == code
    assert result.stderr == f"error: {error}\n"
    assert not result.stdout


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(show_module, "_space", lambda *args: 1 / 0)

    assert isinstance(CliRunner().invoke(main, ["show"]).exception, ZeroDivisionError)


def test_cancelling_ends_with_130(monkeypatch):
    def cancel(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(show_module, "_space", cancel)

    result = CliRunner().invoke(main, ["show"])

    assert result.exit_code == 130
    assert "cancelled" in result.stderr


def test_a_missing_package_names_the_command_that_installs_it():
    message = str(errors.MissingDependencyError("torch", extra="train", purpose="training a supernet"))

    assert message == (
        "training a supernet needs torch, which is not installed; install it with: pip install 'nas2edge[train]'"
    )


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_every_error_says_when_it_is_raised_and_stands_in_the_tree(error):
    assert error.__doc__.startswith("Raised")
    assert error.__name__ in errors.__doc__


def test_a_unit_is_told_in_one_line():
    result = CliRunner().invoke(main, ["search", "--device", "jetson", "--latency", "20"])

    assert result.exit_code == 2
    assert result.stderr.startswith("error: --latency: the latency '20' has no unit; expected one of: ns, us")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--bogus"], ["show", "--bogus"]])
def test_an_unknown_option_is_a_usage_error(runner, arguments):
    result = runner.invoke(main, arguments)

    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert not result.stdout


def test_help_has_a_short_form(runner):
    assert runner.invoke(main, ["-h"]).stdout == runner.invoke(main, ["--help"]).stdout


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "nas2edge", "--version"], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == f"nas2edge, version {nas2edge.__version__}"


@pytest.mark.parametrize(
    ("space", "asked", "expected"),
    [("tiny", None, 1), ("attentivenas", None, 3), ("tiny", 2, 2), ("attentivenas", 2, 2)],
)
def test_small_networks_run_on_one_thread_unless_told_otherwise(space, asked, expected):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        use_threads(asked, load_space(space))

        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
