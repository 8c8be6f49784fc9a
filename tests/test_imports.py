"""What starting up costs: no heavy package is loaded before it is needed, and every command can say what it does."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from nas2edge.cli import main
from nas2edge.cli._main import _COMMANDS

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


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_has_help_with_a_purpose_and_an_example(command):
    result = CliRunner().invoke(main, [command, "--help"])

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5


def test_the_root_lists_every_command_and_the_exit_codes():
    result = CliRunner().invoke(main, ["--help"])

    assert all(command in result.stdout for command in _COMMANDS)
    assert "Exit codes: 0 ok" in result.stdout
