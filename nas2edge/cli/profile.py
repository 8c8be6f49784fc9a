"""nas2edge profile: a latency table of this machine, measured; or of a known device, estimated."""

from __future__ import annotations

import datetime
import sys
from dataclasses import asdict, replace
from functools import partial as partial_function
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas2edge.cli import _profile_remote
from nas2edge.cli._common import Quantity, echo_json, json_option, result_console
from nas2edge.cli._progress import pass_progress
from nas2edge.errors import InputError
from nas2edge.latency.law import estimated_table
from nas2edge.latency.lint import lint_table
from nas2edge.latency.partial import partial_path
from nas2edge.latency.registry import USER_FOLDER, load_law
from nas2edge.latency.table import MEASURED, Calibration, LatencyTable
from nas2edge.latency.table_file import write_table
from nas2edge.plan import unique_layers
from nas2edge.space import SearchSpace
from nas2edge.spaces import load_space
from nas2edge.units import format_latency, parse_duration_s

if TYPE_CHECKING:
    from rich.console import Console

    from nas2edge.latency.measure import Request

CPU = "cpu"
# Those of nas2edge.latency.target, which --help must not wait for.
RUNTIMES = ("onnxruntime", "openvino", "ncnn", "tensorrt", "tensorrt-rtx", "tflite")
PRECISIONS = ("fp32", "fp16", "int8")
_SHOWN = 5


@click.command("profile")
@click.option(
    "--device", default=CPU, show_default=True, help="cpu: this machine. Others with --estimate, --ssh, --ingest."
)
@click.option("--space", "spaces", multiple=True,
              help="Space whose blocks are wanted; repeatable.  [default: tiny]")  # fmt: skip
@click.option("--estimate", is_flag=True, help="Compute a known device's table by its law instead of measuring.")
@click.option("--runtime", type=click.Choice(RUNTIMES), default="onnxruntime", show_default=True,
              help="What executes the networks.")  # fmt: skip
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="Of its arithmetic."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of an operator.  [default: 1]")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images in a run.")
@click.option("--time-per-row", type=Quantity("DURATION", parse_duration_s), default="250ms", show_default=True,
              help="Timed runs of a block, over two sessions.")  # fmt: skip
@click.option("--budget", type=Quantity("DURATION", parse_duration_s),
              help="Time to spend, such as 20min; the blocks that tell most are measured, others filled.")  # fmt: skip
@click.option("--networks", type=click.IntRange(min=0), default=50, show_default=True,
              help="Whole networks of each space: they calibrate, and validate by fifths.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Draws networks, weights, order.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="The table; its name is the device's.  [default: latency_tables/<device>.json]")  # fmt: skip
@click.option("--pack", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.tar.gz",
              help="Write the models and a script for a device without Python, and measure nothing.")  # fmt: skip
@click.option("--ingest", type=click.Path(path_type=Path, exists=True), metavar="RESULTS",
              help="Read the results.tar.gz that the script wrote.")  # fmt: skip
@click.option("--ssh", metavar="USER@HOST", help="Pack, run and ingest on another machine; by key, never a password.")
@click.option("--restart", is_flag=True, help="Forget an interrupted measurement instead of going on from it.")
@click.option("--keep-visits", is_flag=True,
              help="Keep the .partial file of all visits: the same command makes the table of them anew.")  # fmt: skip
@json_option
def command(
    device: str,
    spaces: tuple[str, ...],
    estimate: bool,
    runtime: str,
    precision: str,
    threads: int | None,
    batch: int,
    time_per_row: float,
    budget: float | None,
    networks: int,
    seed: int,
    out: Path | None,
    pack: Path | None,
    ingest: Path | None,
    ssh: str | None,
    restart: bool,
    keep_visits: bool,
    as_json: bool,
) -> None:
    """Measure this machine block by block into a latency table, with its error on whole networks.

    An interrupted measurement goes on where it stopped when the same command runs again. Close other programs; on a
    machine with several cores pin it to one that is free, as with taskset.

    Examples:

    \b
      nas2edge profile --device cpu
      nas2edge profile --device cpu --space tiny --space attentivenas --out latency_tables/my-board.json
      nas2edge profile --runtime openvino --threads 2 --space attentivenas --budget 20min
      nas2edge profile --runtime tensorrt --precision fp16 --device my-jetson --ssh me@jetson.local
      nas2edge profile --device jetson-orin-nano --estimate --space my_space.toml
    """
    given = {
        "--estimate": estimate,
        "--ingest": ingest is not None,
        "--ssh": ssh is not None,
        "--budget": budget is not None,
    }
    _check_modes(given | {"--pack": pack is not None})
    loaded = [load_space(name) for name in dict.fromkeys(spaces or ("tiny",))]
    date = datetime.date.today().isoformat()
    path = _output(device, out)
    failed: dict[str, str] = {}
    if estimate:
        table = _estimate(device, loaded, name=path.stem, date=date)
    elif ingest is not None:
        table, failed = _profile_remote.read(ingest, loaded if spaces else None, name=path.stem, date=date)
    else:
        from nas2edge.latency.measure import Request
        from nas2edge.latency.protocol import Options

        options = Options(time_per_row_s=time_per_row)
        request = Request(spaces=tuple(loaded), date=date, seed=seed, options=options, nets=networks,
                          partial=partial_path(path))  # fmt: skip
        if pack is not None or ssh is not None:
            _profile_remote.tool_of(runtime)
            packed = pack or path.with_suffix(".pack.tar.gz")
            _make_user_folder(packed)
            models = _profile_remote.write(packed, request, runtime=runtime, precision=precision, threads=threads,
                                           batch=batch, seconds=time_per_row / options.sessions)  # fmt: skip
            if ssh is None:
                _say_packed(packed, models, runtime, as_json=as_json)
                return
            results = _profile_remote.by_ssh(ssh, packed)
            table, failed = _profile_remote.read(results, loaded, name=path.stem, date=date)
        else:
            table = _measure(request, device, name=path.stem, runtime=runtime, precision=precision,
                             threads=threads or 1, batch=batch, budget=budget, restart=restart)  # fmt: skip
    _make_user_folder(path)
    write_table(path, table)
    if not (estimate or ingest or ssh or keep_visits):
        partial_path(path).unlink(missing_ok=True)
    _report(table, path, failed, as_json=as_json)


def _report(table: LatencyTable, path: Path, failed: dict[str, str], *, as_json: bool) -> None:
    """Says what was written; ends with exit code 2 if the table fails lint."""
    errors = lint_table(table).errors
    if as_json:
        echo_json(_summary(table, path) | {"failed": failed, "lint_errors": [asdict(error) for error in errors]})
    console = result_console(as_json=as_json)
    _render(console, table, path)
    for name, reason in list(failed.items())[:_SHOWN]:
        console.print(f"  not measured: {name}: {reason}", markup=False)
    if len(failed) > _SHOWN:
        console.print(f"  not measured: {len(failed) - _SHOWN} more; --json lists all of them")
    if not errors:
        console.print(f"use it: nas2edge search --device {table.device.name} --tables {path.parent}", markup=False)
    else:
        for error in errors:
            console.print(f"error {error.rule}: {error.message}; {error.advice}", markup=False)
        console.print(
            f"searches refuse this table unless they are forced (see: nas2edge tables lint {path})", markup=False
        )
        raise click.exceptions.Exit(2)


def _make_user_folder(path: Path) -> None:
    """Makes the folder where tables go unless they are told otherwise; a refused command leaves nothing behind."""
    if path.parent == USER_FOLDER:
        USER_FOLDER.mkdir(exist_ok=True)


def _check_modes(given: dict[str, bool]) -> None:
    modes = [name for name in ("--estimate", "--ingest", "--ssh", "--budget") if given[name]]
    if len(modes) > 1 or (given["--pack"] and modes not in ([], ["--ssh"])):
        named = " and ".join([*(["--pack"] if given["--pack"] else []), *modes])
        raise InputError(f"{named} exclude each other; give one of them")


def _measure(
    request: Request,
    device: str,
    *,
    name: str,
    runtime: str,
    precision: str,
    threads: int,
    batch: int,
    budget: float | None,
    restart: bool,
) -> LatencyTable:
    from nas2edge.cli._int8 import int8_graph
    from nas2edge.latency.budgeted import build_within
    from nas2edge.latency.measure import profile_machine
    from nas2edge.latency.target import Target, check_target

    if device != CPU:
        raise InputError(
            f"--device {device} cannot be measured from here: run `nas2edge profile` on the device itself, measure it "
            "by --ssh or --pack, or add --estimate for a table by a published law"
        )
    target = Target(runtime=runtime, precision=precision, threads=threads, batch=batch)
    check_target(target)
    if request.partial is not None:
        _make_user_folder(request.partial)
    if restart and request.partial is not None:
        request.partial.unlink(missing_ok=True)
    with pass_progress() as progress:
        return profile_machine(
            request,
            name=name,
            target=target,
            build=None if budget is None else partial_function(build_within, seconds=budget),
            quantise=int8_graph,
            command=" ".join(["nas2edge", *sys.argv[1:]]),
            progress=progress,
        )


def _say_packed(path: Path, models: int, runtime: str, *, as_json: bool) -> None:
    tool = _profile_remote.tool_of(runtime).name
    if as_json:
        echo_json({"format": "nas2edge.pack", "version": 1, "file": str(path), "models": models, "tool": tool})
    console = result_console(as_json=as_json)
    console.print(f"{path}: {models} models for {tool}, {path.stat().st_size / 1e6:.3g} MB", markup=False)
    console.print(
        f"on the device, which needs {tool}: tar -xzf {path.name} && sh nas2edge-pack/run.sh\n"
        "then here: nas2edge profile --device NAME --ingest results.tar.gz",
        markup=False,
    )


def _estimate(device: str, spaces: list[SearchSpace], *, name: str, date: str) -> LatencyTable:
    known = load_law(device)
    assert known.law is not None
    layers = [layer for space in spaces for layer in unique_layers(space)]
    return estimated_table(known.law, replace(known.device, name=name), layers, date=date, licence=known.licence)


def _output(device: str, out: Path | None) -> Path:
    if out is None:
        return USER_FOLDER / f"{device}.json"
    if out.suffix != ".json":
        raise InputError(f"--out {out} does not end in .json, which it must to be found again")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}")
    return out


def _summary(table: LatencyTable, path: Path) -> dict[str, Any]:
    return {
        "format": "nas2edge.profile",
        "version": 1,
        "file": str(path),
        "device": table.device.to_dict(),
        "kind": table.kind,
        "rows": len(table.rows),
        "measured_rows": sum(row.status == MEASURED for row in table.rows),
        "rel_sigma": table.rel_sigma,
        "calibration": asdict(table.calibration),
        "validation": [asdict(entry) for entry in table.validation],
        "protocol": dict(table.protocol),
    }


def _render(console: Console, table: LatencyTable, path: Path) -> None:
    measured = sum(row.status == MEASURED for row in table.rows)
    kinds = f"{measured} measured and {len(table.rows) - measured} interpolated" if measured else table.kind
    kinds = table.kind if measured == len(table.rows) else kinds
    console.print(f"{path}: {len(table.rows)} rows, {kinds}, {table.device.label}", soft_wrap=True)
    for entry in table.validation:
        console.print(
            f"  {entry.space}: {entry.mape:.2g} % mean error on {entry.nets} networks, each by a fit to others "
            f"(bias {entry.bias:+.2g} %, {entry.within_10:.0%} within 10 %, Kendall tau {entry.kendall_tau:.3f})",
            soft_wrap=True,
        )
    if table.calibration.nets:
        console.print(f"  network = {_line(table.calibration)}", soft_wrap=True)
    if large := table.calibration.large:
        console.print(
            f"  with more than {table.calibration.cache_mb:.3g} MB of weights: network = {_line(large)}", soft_wrap=True
        )
    disturbed = [table.protocol.get(name, 0) for name in ("disturbed_rows", "disturbed_networks")]
    if any(disturbed):
        console.print(
            f"  warning: the machine was busy during {disturbed[0]} rows and {disturbed[1]} networks; "
            "their errors are wider, and such networks were left out. Measure again on a quiet machine",
            soft_wrap=True,
        )
    if not table.validation:
        console.print(
            f"  expected error of a network: {table.rel_sigma:.0%} (one sigma), not validated", soft_wrap=True
        )


def _line(calibration: Calibration) -> str:
    spill = f" + {format_latency(calibration.spill_ms_per_mb)} per MB of weights beyond {calibration.cache_mb:.3g}"
    launch = f" + {format_latency(calibration.launch_ms)} per launch beyond {calibration.warm_launches:.3g}"
    return (
        f"{format_latency(calibration.overhead_ms)} + {calibration.slope:.3f} x sum of its blocks"
        + (spill if calibration.spill_ms_per_mb else "")
        + (launch if calibration.launch_ms else "")
    )
