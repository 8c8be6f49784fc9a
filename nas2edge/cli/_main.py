"""The root command: it loads a command's module only when that command runs, and turns errors into exit codes."""

from __future__ import annotations

import importlib
from typing import Any

import click

from nas2edge._version import __version__
from nas2edge.errors import Nas2EdgeError, UnknownNameError

EPILOG = (
    "Exit codes: 0 ok; 1 a bug of ours; 2 unusable input; 3 artefacts written but engine not built; "
    "4 parity or accuracy failed; 5 inconclusive; 6 slower or larger than allowed; 7 infeasible constraint; "
    "130 cancelled."
)

_COMMANDS = {
    "search": "Find the best sub-network for a device and its limits.",
    "report": "Show a search's front as one HTML page that opens offline.",
    "export": "Freeze a sub-network to ONNX or an engine, with proof that nothing changed.",
    "bench": "Time networks on this machine, and compare them.",
    "check": "Gate a network's latency and costs in CI, without crying wolf.",
    "lint": "Say what a target would stumble over in an ONNX file.",
    "train": "Train a supernet on a folder of images.",
    "import": "Read a published checkpoint of AlphaNet or AttentiveNAS.",
    "predictor": "Fit a small model of a supernet's accuracies.",
    "ablate": "Compare what sub-networks learn from, as box plots by regimes of MACs.",
    "profile": "Measure this machine block by block into a latency table.",
    "devices": "List latency tables, their aliases, kind and error.",
    "tables": "Check, import and transfer latency tables.",
    "show": "Print a search space, or the layers of a sub-network.",
    "evaluate": "Measure accuracies of sub-networks of a supernet.",
}


_MODULES = {"import": "import_checkpoint"}  # where the module cannot have the command's name


class _LazyGroup(click.Group):
    """Knows its commands by name and one line each, so that --help imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"nas2edge.cli.{_MODULES.get(cmd_name, cmd_name)}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise UnknownNameError("command", args[0], _COMMANDS, see="nas2edge --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Nas2EdgeError as err:
            raise _Reported(err) from err
        except KeyboardInterrupt:
            click.echo("cancelled", err=True)
            ctx.exit(130)


class _Reported(click.ClickException):
    """An error of ours as click shows it: one line on stderr, and its exit code."""

    def __init__(self, err: Nas2EdgeError) -> None:
        super().__init__(str(err))
        setattr(self, "exit_code", err.exit_code)  # noqa: B010  # declared by click as a class variable

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True)


@click.command(cls=_LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nas2edge")
def main() -> None:
    """From one trained supernet to many networks that run fast on edge devices, with proof at every step."""
