"""What starting up costs: no heavy package is loaded before it is needed, and every command can say what it does."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from nas2edge import cli
from nas2edge.cli import main
from nas2edge.cli._main import _COMMANDS, _MODULES

HEAVY = {"torch", "onnx", "onnxruntime", "onnxsim", "matplotlib", "sklearn", "torchvision", "safetensors"}


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split()) & HEAVY


def help_of(*arguments: str) -> str:
    return f"""
from nas2edge.cli import main
try:
    main([*{arguments!r}, "--help"])
except SystemExit as done:
    assert not done.code, done.code
"""


def test_the_package_loads_nothing_heavy():
    assert not loaded_by("import nas2edge")


@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_help_loads_nothing_heavy(command):
    assert not loaded_by(help_of(*([command] if command else [])))


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_says_what_it_and_each_option_is_for(name, runner):
    result = runner.invoke(main, [name, "--help"])
    command = main.get_command(click.Context(main), name)

    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {name} ")
    assert command and command.help
    assert not [option.name for option in command.params if isinstance(option, click.Option) and not option.help]


def test_every_command_that_has_a_module_is_listed():
    """And the other way round: a listed command without a module fails above."""
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py") if not path.stem.startswith("_")}

    assert modules == {_MODULES.get(name, name) for name in _COMMANDS}


def test_the_root_lists_every_command_and_the_exit_codes(runner):
    result = runner.invoke(main, ["--help"])

    assert all(command in result.stdout for command in _COMMANDS)
    assert "Exit codes: 0 ok" in result.stdout
