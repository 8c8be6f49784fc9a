"""nas2edge export: a sub-network as a bundle, with proof that it is the one that was searched."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas2edge.cli._common import echo_json, json_option, result_console, threads_option, use_threads
from nas2edge.cli._export_options import batch_of, default_name, labels_of, names_of, precisions_of, targets_of
from nas2edge.errors import EngineNotBuiltError, InputError, ParityError
from nas2edge.export.registry import load_exporter, target_names
from nas2edge.optional import require
from nas2edge.subnet_file import SubnetFile, find_subnet
from nas2edge.supernet.weights_file import supernet_info

if TYPE_CHECKING:
    from nas2edge.export.request import ExportRequest, ExportResult
    from nas2edge.export.rows import Timing
    from nas2edge.export.stages import Stage


@click.command("export")
@click.argument("subnet")
@click.option("--to", help=f"Targets, with commas between them: {', '.join(target_names())}.")
@click.option("--all-targets", is_flag=True, help="Every target that can be made here.")
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    help="fp32, fp16, int8, several with commas between them, or all; what a network computes in.",
)
@click.option("--max-drop", type=float, help="Points of top-1 that a precision may lose.  [default: 0.1; int8 1.0]")
@click.option(
    "--calibrator",
    default="auto",
    show_default=True,
    help="How int8 ranges are chosen: minmax, percentile, entropy, mse, or auto for the best as measured.",
)
@click.option("--int8-rest", default="fp32", show_default=True, help="What int8 leaves in float: fp32, or fp16.")
@click.option("--keep-fp32", help="Blocks, or layers as BLOCK.LAYER, that stay in float32.")
@click.option("--with-preprocess", is_flag=True, help="Take uint8 pixels (N, R, R, 3), and normalise inside the model.")
@click.option("--labels", type=click.Path(path_type=Path), help="Class names: one a line, or a JSON list.")
@click.option("--exporter", default="own", show_default=True, help="Who writes the graph: own, or torch.")
@click.option("--out", type=click.Path(path_type=Path), help="The bundle's folder.  [default: bundles/SPACE-ID-...]")
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
    to: str | None,
    all_targets: bool,
    precision: str,
    max_drop: float | None,
    calibrator: str,
    int8_rest: str,
    keep_fp32: str | None,
    with_preprocess: bool,
    labels: Path | None,
    exporter: str,
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
    holds model.onnx, model.fp16.onnx and model.int8.onnx if asked for, what the targets make of each, report.md with
    the verdict of each step, manifest.json, and parity.npz to compare with on the device.

    Example: nas2edge export subnet.json --to trt --precision fp16
    """
    given = {"builder": builder, "timing_cache": timing_cache}
    options = {name: value for name, value in given.items() if value is not None}
    targets, precisions = targets_of(to, every=all_targets), precisions_of(precision)
    for name in targets:
        load_exporter(name)
    require("torch", "PIL", extra="export", purpose="exporting a sub-network")
    sizes, names = batch_of(batch), labels_of(labels)
    kept = names_of(keep_fp32, option="--keep-fp32") if keep_fp32 is not None else ()
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
        targets=targets,
        precisions=precisions,
        max_drop=max_drop,
        calibrator=calibrator,
        int8_rest=int8_rest,
        keep_fp32=kept,
        with_preprocess=with_preprocess,
        labels=names,
        exporter=exporter,
        out=out or default_name(file.space.name, file.subnet.id, targets, precisions),
        data=data,
        recalibrate=recalibrate,
        opset=opset,
        batch=sizes,
        force=force,
        options=options,
    )
    with _terminated_as_cancelled():
        result = _export(request, as_json=as_json)
    if result.engine_errors and not all_targets:
        raise EngineNotBuiltError("\n".join(result.engine_errors.values()))


def _export(request: ExportRequest, *, as_json: bool) -> ExportResult:
    """Exports, and shows every stage as it ends, then the files."""
    from rich.markup import escape

    from nas2edge.cli._export_output import show_result, show_stage, summary
    from nas2edge.export.pipeline import export

    console = result_console(as_json=as_json)
    source, subnet = request.supernet.info.source, request.file.subnet
    console.print(escape(f"sub-network {subnet.id} of {request.file.space.name}, weights of {source}\n"))
    stages: list[Stage] = []
    try:
        with console.status("") as status:

            def on_stage(stage: Stage) -> None:
                stages.append(stage)
                show_stage(console, stage)

            result = export(request, on_stage=on_stage, on_progress=lambda said: status.update(escape(said)))
            status.update("measuring latencies")
            timings = _timings(request, result)
    except ParityError as err:
        if as_json:
            echo_json(summary(request.targets, stages, error=str(err)))
        raise
    if as_json:
        echo_json(summary(request.targets, stages, result=result, timings=timings))
    show_result(console, result, timings)
    return result


def _timings(request: ExportRequest, result: ExportResult) -> dict[tuple[str, str], Timing]:
    """Times what was made, if there is something to compare."""
    if len(result.rows) < 2:
        return {}
    from nas2edge.cli._export_latency import measure_rows

    side = request.file.subnet.resolution
    image = (side, side, 3) if request.with_preprocess else (3, side, side)
    return measure_rows(result.folder, result.rows, batch=request.batch, image=image)


@contextmanager
def _terminated_as_cancelled() -> Iterator[None]:
    """Lets SIGTERM end an export as Ctrl-C does: nothing is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cancel(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_weights(file: SubnetFile, sha256: str, source: str, *, given: bool) -> None:
    expected = (file.supernet or {}).get("sha256")
    if expected and expected != sha256 and not given:
        raise InputError(
            f"{source} is not the supernet that the sub-network was searched with (sha256 {sha256[:12]}, not "
            f"{expected[:12]}); search again, or name the weights to use by --supernet"
        )
