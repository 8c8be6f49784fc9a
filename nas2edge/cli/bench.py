"""nas2edge bench: artefacts timed in turns on this machine, compared, profiled, and put beside a table's prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas2edge.cli._bench_options import runtime_option, shape_option, threads_option, time_limit_option
from nas2edge.cli._common import echo_json, json_option, result_console
from nas2edge.errors import InputError

if TYPE_CHECKING:
    from nas2edge.bench.artefact import Artefact
    from nas2edge.bench.measure import Options
    from nas2edge.bench.predicted import Prediction
    from nas2edge.bench.result import Result
    from nas2edge.runtimes.operators import OperatorTime


@click.command("bench")
@click.argument("artefacts", nargs=-1, required=True, metavar="ARTEFACT...")
@runtime_option
@threads_option
@shape_option
@click.option("--rounds", type=click.IntRange(min=2), default=5, show_default=True,
              help="Rounds; each starts every artefact in a fresh process.")  # fmt: skip
@click.option("--cycles", type=click.IntRange(min=4), default=40, show_default=True,
              help="Turns there and back in a round.")  # fmt: skip
@click.option("--vs-table", "device", metavar="DEVICE", help="Put this latency table's prediction beside, by block.")
@click.option("--tables", type=click.Path(path_type=Path), help="Folder of latency tables to search first.")
@click.option("--profile", is_flag=True, help="Show the slowest operators, by the runtime's profiler.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the distributions to this .png.")
@time_limit_option
@json_option
def command(
    artefacts: tuple[str, ...],
    runtime: str | None,
    threads: int,
    shape: tuple[int, ...] | None,
    rounds: int,
    cycles: int,
    device: str | None,
    tables: Path | None,
    profile: bool,
    plot: Path | None,
    time_limit: float,
    as_json: bool,
) -> None:
    """Time networks on this machine, and compare them.

    ARTEFACT is a bundle of nas2edge export, or a file: .onnx, .ort (ONNX Runtime), .xml (OpenVINO; .onnx with --runtime
    openvino), .param (ncnn), .pt2, .pt (PyTorch). Several are measured in turns, milliseconds each, so that what
    disturbs one disturbs all. Timed is a run of one input that lies in memory; copies are not in it where the runtime
    allows that.

    \b
    Examples:
      nas2edge bench bundles/mine
      nas2edge bench old.onnx new.onnx --threads 2 --plot times.png
      nas2edge bench bundles/mine --vs-table cpu --profile
    """
    from nas2edge.bench.artefact import find_artefact
    from nas2edge.bench.compare import measure_all
    from nas2edge.bench.fingerprint import conditions, take_fingerprint
    from nas2edge.bench.measure import Options
    from nas2edge.bench.result import results_dict
    from nas2edge.cli._bench_output import bench_progress, pair_dict, prediction_dict, render_bench

    _check_plot(plot)
    found = [find_artefact(name, runtime=runtime, shape=shape) for name in artefacts]
    if device is not None and len(found) > 1:
        raise InputError(f"--vs-table takes one artefact; {len(found)} were given")
    options = Options(threads=threads, cycles=cycles, time_limit_s=time_limit)
    table = _table(device, tables)
    before = conditions()
    with bench_progress() as progress:
        results, pairs, _ = measure_all(found, options, rounds=rounds, progress=progress)
    fingerprint = take_fingerprint(runtimes=tuple(result.runtime for result in results), threads=threads)
    wanted = profile or table is not None
    operators = [_operators(artefact, options) for artefact in found] if wanted else []
    prediction = None if table is None else _predict(table, results[0], operators[0])
    if plot is not None:
        from nas2edge.bench.plot import plot_distributions

        plot_distributions(results, plot, title=f"{fingerprint.chip}, {fingerprint.os}, {threads} thread(s)")
    if as_json:
        more: dict[str, Any] = {"prediction": None if prediction is None else prediction_dict(prediction)}
        if profile:
            more["operators"] = [
                [{"name": entry.name, "kind": entry.kind, "ms": round(entry.ms, 6)} for entry in entries]
                for entries in operators
            ]
        comparisons = [pair_dict(pair) for pair in pairs]
        echo_json(results_dict(results, fingerprint=fingerprint, conditions=before, comparisons=comparisons, **more))
    render_bench(
        result_console(as_json=as_json),
        results,
        pairs,
        fingerprint=fingerprint,
        conditions=before,
        operators=operators if profile else [],
        prediction=prediction,
        plot=plot,
    )


def _check_plot(plot: Path | None) -> None:
    """Before anything is measured."""
    if plot is None:
        return
    from nas2edge.optional import require

    if plot.suffix != ".png":
        raise InputError(f"--plot {plot} does not end in .png; only PNG is drawn")
    if not plot.parent.is_dir():
        raise InputError(f"cannot write {plot}: there is no folder {plot.parent}")
    require("matplotlib", extra="report", purpose="drawing the distributions")


def _table(device: str | None, tables: Path | None) -> Any:
    if device is None:
        return None
    from nas2edge.latency.registry import load_table

    return load_table(device, tables=tables)


def _operators(artefact: Artefact, options: Options) -> list[OperatorTime]:
    from nas2edge.bench.measure import profile_operators

    return profile_operators(artefact, options)


def _predict(table: Any, result: Result, operators: list[OperatorTime]) -> Prediction:
    from nas2edge.bench.predicted import layers_of, predict

    layers = layers_of(result.artefact)
    if layers is None:
        raise InputError(
            f"{result.artefact.name} does not say which sub-network it is, so no table can predict it; "
            "give a bundle or an ONNX file of nas2edge export"
        )
    assert result.timing is not None
    return predict(table, layers, operators, measured_ms=result.timing.p50)
