"""nas2edge export: a sub-network as a bundle, with proof that it is the one that was searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas2edge.cli._common import echo_json, json_option, result_console, threads_option, use_threads
from nas2edge.errors import EngineNotBuiltError, InputError, ParityError
from nas2edge.export.registry import load_exporter, target_names
from nas2edge.optional import require
from nas2edge.subnet_file import SubnetFile, find_subnet
from nas2edge.supernet.weights_file import supernet_info

if TYPE_CHECKING:
    from rich.console import Console

    from nas2edge.export.exporter import BatchRange
    from nas2edge.export.request import ExportRequest, ExportResult
    from nas2edge.export.stages import Stage

MAX_BATCH = 65_536
_MARKS = {
    "passed": "[green]ok[/]  ",
    "failed": "[red]FAIL[/]",
    "skipped": "[yellow]--[/]  ",
    "unchecked": "[yellow]made[/]",
}


@click.command("export")
@click.argument("subnet")
@click.option("--to", "target", required=True, help=f"Target: {', '.join(target_names())}.")
@click.option("--out", type=click.Path(path_type=Path), help="The bundle's folder.  [default: bundles/SPACE-ID-TARGET]")
@click.option("--supernet", help="A run's folder, or an embedded supernet.  [default: the one in SUBNET]")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Images of your own.  [default: those beside the weights]"
)
@click.option(
    "--recalibrate", type=click.IntRange(min=0), help="Calibration images to use; 0 for none.  [default: all]"
)
@click.option("--opset", default=17, show_default=True, help="ONNX operator set; TensorRT before 8.4 needs 13.")
@click.option("--batch", default="1", show_default=True, help="Batch size, or MIN:OPT:MAX for any in between.")
@threads_option
@click.option(
    "--builder", help="Of --to trt: python, rtx, trtexec or ssh://USER@HOST.  [default: whichever works here]"
)
@click.option("--timing-cache", help="Of --to trt: a file of kernel timings to build with.  [default: one per user]")
@click.option("--force", is_flag=True, help="Replace a bundle of another sub-network.")
@json_option
def command(
    subnet: str,
    target: str,
    out: Path | None,
    supernet: str | None,
    data: Path | None,
    recalibrate: int | None,
    opset: int,
    batch: str,
    threads: int | None,
    builder: str | None,
    timing_cache: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Freeze a sub-network, and check at every step that nothing changed.

    SUBNET is a subnet.json, as search writes it, or smallest, largest or alphanet-a0 (to a6) of --supernet. The bundle
    holds model.onnx, the engine if asked for, report.md with the verdict of each step, manifest.json, and parity.npz to
    compare with on the device.

    Example: nas2edge export subnet.json --to trt
    """
    given = {"builder": builder, "timing_cache": timing_cache}
    options = {name: value for name, value in given.items() if value is not None}
    load_exporter(target, options)
    require("torch", "PIL", extra="export", purpose="exporting a sub-network")
    sizes = _batch(batch)
    file = find_subnet(subnet, supernet_info(supernet).space if supernet else None)
    source = supernet or (file.supernet or {}).get("source")
    if source is None:
        raise InputError(f"{subnet} names no supernet, so it has no weights; give a run of its space by --supernet")
    from nas2edge.export.request import ExportRequest
    from nas2edge.supernet.checkpoint import load_supernet

    loaded = load_supernet(source)
    use_threads(threads, loaded.info.space)
    _check_weights(file, loaded.info.sha256, source, given=supernet is not None)
    request = ExportRequest(
        file=file,
        supernet=loaded,
        targets=(target,),
        out=out or Path("bundles") / f"{file.space.name}-{file.subnet.id}-{target}",
        data=data,
        recalibrate=recalibrate,
        opset=opset,
        batch=sizes,
        force=force,
        options=options,
    )
    _export(request, as_json=as_json)


def _export(request: ExportRequest, *, as_json: bool) -> None:
    """Exports, and shows every stage as it ends, then the files."""
    from rich.markup import escape

    from nas2edge.export.pipeline import export

    console = result_console(as_json=as_json)
    source, subnet = request.supernet.info.source, request.file.subnet
    console.print(escape(f"sub-network {subnet.id} of {request.file.space.name}, weights of {source}\n"))
    stages: list[Stage] = []

    def on_stage(stage: Stage) -> None:
        stages.append(stage)
        console.print(f"  {_MARKS[stage.verdict]} {stage.name:12s} {escape(stage.summary)}  ({stage.seconds:.1f} s)")

    try:
        with console.status("") as status:
            result = export(request, on_stage=on_stage, on_progress=lambda said: status.update(escape(said)))
    except ParityError as err:
        if as_json:
            echo_json(_summary(request.targets, stages, error=str(err)))
        raise
    if as_json:
        echo_json(_summary(request.targets, stages, result=result))
    _show_files(console, result)
    if result.engine_errors:
        raise EngineNotBuiltError("\n".join(result.engine_errors.values()))


def _summary(
    targets: Sequence[str], stages: Sequence[Stage], *, result: ExportResult | None = None, error: str = ""
) -> dict[str, Any]:
    return {
        "format": "nas2edge.export",
        "version": 1,
        "passed": result is not None,
        "error": error or None,
        "bundle": str(result.folder) if result else None,
        "targets": list(targets),
        "engine_errors": result.engine_errors if result else {},
        "accuracy": result.accuracy if result else {},
        "stages": [{"name": s.name, "verdict": s.verdict, "summary": s.summary} for s in stages],
    }


def _show_files(console: Console, result: ExportResult) -> None:
    from rich.markup import escape

    names = sorted(file.name for file in result.folder.iterdir())
    console.print(escape(f"\nwrote {result.folder}/: {', '.join(names)}"))
    console.print(escape(f"next: read {result.folder / 'report.md'}; it ends with the commands to run it elsewhere"))


def _check_weights(file: SubnetFile, sha256: str, source: str, *, given: bool) -> None:
    expected = (file.supernet or {}).get("sha256")
    if expected and expected != sha256 and not given:
        raise InputError(
            f"{source} is not the supernet that the sub-network was searched with (sha256 {sha256[:12]}, not "
            f"{expected[:12]}); search again, or name the weights to use by --supernet"
        )


def _batch(text: str) -> BatchRange:
    parts = text.split(":")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(parts) not in (1, 3):
        raise InputError(f"batch {text!r} does not read; expected a size such as 1, or MIN:OPT:MAX such as 1:4:16")
    sizes = [int(part) for part in parts]
    if max(sizes) > MAX_BATCH:
        raise InputError(f"batch {text!r} is too large; expected at most {MAX_BATCH}")
    low, usual, high = sizes * 3 if len(sizes) == 1 else sizes
    if not low <= usual <= high:
        raise InputError(f"batch {text!r} is out of order; expected MIN <= OPT <= MAX")
    return low, usual, high
