"""nas2edge profile: a latency table of this machine, measured; or of a known device, estimated."""

from __future__ import annotations

import datetime
import sys
from dataclasses import replace
from functools import partial as partial_function
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas2edge.cli._common import Quantity, echo_json, json_option, result_console
from nas2edge.cli._progress import pass_progress
from nas2edge.errors import InputError
from nas2edge.latency.law import estimated_table
from nas2edge.latency.partial import partial_path
from nas2edge.latency.registry import USER_FOLDER, load_law
from nas2edge.latency.table import MEASURED, LatencyTable
from nas2edge.latency.table_file import write_table
from nas2edge.plan import unique_layers
from nas2edge.space import SearchSpace
from nas2edge.spaces import load_space
from nas2edge.units import format_latency, parse_duration_s

if TYPE_CHECKING:
    from rich.console import Console

CPU = "cpu"
# Those of nas2edge.latency.target, which --help must not wait for.
RUNTIMES = ("onnxruntime", "openvino", "ncnn", "tensorrt", "tensorrt-rtx", "tflite")
PRECISIONS = ("fp32", "fp16", "int8")


@click.command("profile")
@click.option("--device", default=CPU, show_default=True, help="cpu: this machine. Others only with --estimate.")
@click.option("--space", "spaces", multiple=True, default=("tiny",), show_default=True,
              help="Space whose blocks are wanted; repeatable.")  # fmt: skip
@click.option("--estimate", is_flag=True, help="Compute a known device's table by its law instead of measuring.")
@click.option("--runtime", type=click.Choice(RUNTIMES), default="onnxruntime", show_default=True,
              help="What executes the networks.")  # fmt: skip
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="Of its arithmetic."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of an operator.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images in a run.")
@click.option("--time-per-row", type=Quantity("DURATION", parse_duration_s), default="250ms", show_default=True,
              help="Timed runs of a block, over two sessions.")  # fmt: skip
@click.option("--budget", type=Quantity("DURATION", parse_duration_s),
              help="Time to spend, such as 20min; the blocks that tell most are measured, others filled.")  # fmt: skip
@click.option("--networks", type=click.IntRange(min=0), default=50, show_default=True,
              help="Whole networks of each space: two fifths calibrate, the others validate.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Draws networks, weights, order.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="The table; its name is the device's.  [default: latency_tables/<device>.json]")  # fmt: skip
@click.option("--restart", is_flag=True, help="Forget an interrupted measurement instead of going on from it.")
@json_option
def command(
    device: str,
    spaces: tuple[str, ...],
    estimate: bool,
    runtime: str,
    precision: str,
    threads: int,
    batch: int,
    time_per_row: float,
    budget: float | None,
    networks: int,
    seed: int,
    out: Path | None,
    restart: bool,
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
      nas2edge profile --device jetson-orin-nano --estimate --space my_space.toml
    """
    loaded = [load_space(name) for name in dict.fromkeys(spaces)]
    path = _output(device, out)
    date = datetime.date.today().isoformat()
    if estimate:
        table = _estimate(device, loaded, name=path.stem, date=date)
    elif device != CPU:
        raise InputError(
            f"--device {device} cannot be measured from here: run `nas2edge profile` on the device itself, "
            "or add --estimate for a table by a published law"
        )
    else:
        from nas2edge.cli._int8 import int8_graph
        from nas2edge.latency.budgeted import build_within
        from nas2edge.latency.measure import Request, profile_machine
        from nas2edge.latency.protocol import Options
        from nas2edge.latency.target import Target, check_target

        target = Target(runtime=runtime, precision=precision, threads=threads, batch=batch)
        check_target(target)
        partial = partial_path(path)
        if restart:
            partial.unlink(missing_ok=True)
        request = Request(
            spaces=tuple(loaded),
            date=date,
            seed=seed,
            options=Options(time_per_row_s=time_per_row),
            nets=networks,
            partial=partial,
        )
        with pass_progress() as progress:
            table = profile_machine(
                request,
                name=path.stem,
                target=target,
                build=None if budget is None else partial_function(build_within, seconds=budget),
                quantise=int8_graph,
                command=" ".join(["nas2edge", *sys.argv[1:]]),
                progress=progress,
            )
    write_table(path, table)
    if not estimate:
        partial_path(path).unlink(missing_ok=True)
    if as_json:
        echo_json(_summary(table, path))
    _render(result_console(as_json=as_json), table, path)


def _estimate(device: str, spaces: list[SearchSpace], *, name: str, date: str) -> LatencyTable:
    known = load_law(device)
    assert known.law is not None
    layers = [layer for space in spaces for layer in unique_layers(space)]
    return estimated_table(known.law, replace(known.device, name=name), layers, date=date, licence=known.licence)


def _output(device: str, out: Path | None) -> Path:
    if out is None:
        USER_FOLDER.mkdir(exist_ok=True)
        return USER_FOLDER / f"{device}.json"
    if out.suffix != ".json":
        raise InputError(f"--out {out} does not end in .json, which it must to be found again")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}")
    return out


def _summary(table: LatencyTable, path: Path) -> dict[str, Any]:
    from dataclasses import asdict

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
            f"  {entry.space}: {entry.mape:.2g} % mean error on {entry.nets} other networks (bias {entry.bias:+.2g} %, "
            f"{entry.within_10:.0%} within 10 %, Kendall tau {entry.kendall_tau:.3f})",
            soft_wrap=True,
        )
    calibration = table.calibration
    if calibration.nets:
        spill = f" + {format_latency(calibration.spill_ms_per_mb)} per MB of weights beyond {calibration.cache_mb:.3g}"
        launch = f" + {format_latency(calibration.launch_ms)} per launch beyond {calibration.warm_launches:.3g}"
        console.print(
            f"  network = {format_latency(calibration.overhead_ms)} + {calibration.slope:.3f} x sum of its blocks"
            + (spill if calibration.spill_ms_per_mb else "")
            + (launch if calibration.launch_ms else ""),
            soft_wrap=True,
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
    console.print(f"use it: nas2edge search --device {table.device.name} --tables {path.parent}", soft_wrap=True)
