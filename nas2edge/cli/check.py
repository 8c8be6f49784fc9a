"""nas2edge check: the gate for CI; latency and costs of a network, or the rows of latency tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas2edge.bench.quantities import parse_growth, parse_share
from nas2edge.cli._bench_options import runtime_option, shape_option, threads_option, time_limit_option
from nas2edge.cli._common import Quantity, echo_json, json_option, result_console
from nas2edge.errors import InconclusiveError, InputError, RegressionError
from nas2edge.units import parse_duration_s, parse_latency_ms

if TYPE_CHECKING:
    from nas2edge.bench.artefact import Artefact
    from nas2edge.bench.check import Report, Request


@click.command("check")
@click.argument("new", required=False)
@click.option("--baseline", help="What NEW is compared with: a bundle, a file, or a result stored by --save.")
@click.option("--max-slowdown", type=Quantity("PERCENT", parse_share), default="5%", show_default=True,
              help="Greatest slowdown, measured and by the table.")  # fmt: skip
@click.option("--max-growth", type=Quantity("PERCENT", parse_growth),
              help="Greatest growth of MACs, parameters, size, operators, activation memory; none for any.  "
              "[default: as --max-slowdown]")  # fmt: skip
@click.option("--max-latency", type=Quantity("LATENCY", parse_latency_ms),
              help="Greatest latency of NEW: by the table of --device, or measured.")  # fmt: skip
@click.option("--device", help="Latency table to predict with, as for search.")
@click.option("--gate", type=click.Choice(["auto", "measured", "deterministic"]), default="auto", show_default=True,
              help="What may fail: measured latency too, or only what needs no clock; auto: see above.")  # fmt: skip
@click.option("--budget", type=Quantity("DURATION", parse_duration_s), default="60s", show_default=True,
              help="Time for measuring, the rerun that confirms a failure included.")  # fmt: skip
@runtime_option
@threads_option
@shape_option
@time_limit_option
@click.option(
    "--different-inputs", is_flag=True, help="Compare networks of different input shapes, as resolutions are."
)
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False),
              help="Store NEW's result here unless the check fails; it can be a baseline.")  # fmt: skip
@click.option("--summary", type=click.Path(path_type=Path, dir_okay=False),
              help="Append the verdict to this file as Markdown, as for $GITHUB_STEP_SUMMARY.")  # fmt: skip
@click.option("--tables", type=click.Path(path_type=Path),
              help="Folder of latency tables to search first; without NEW: check that they still hold.")  # fmt: skip
@click.option("--rows", type=click.IntRange(min=1), default=12, show_default=True,
              help="Rows of a table to measure again.")  # fmt: skip
@json_option
def command(
    new: str | None,
    baseline: str | None,
    max_slowdown: float,
    max_growth: float | None,
    max_latency: float | None,
    device: str | None,
    gate: str,
    budget: float,
    runtime: str | None,
    threads: int,
    shape: tuple[int, ...] | None,
    time_limit: float,
    different_inputs: bool,
    save: Path | None,
    summary: Path | None,
    tables: Path | None,
    rows: int,
    as_json: bool,
) -> None:
    """Gate a network in CI: exit 0 if it is good, 6 if it is slower or larger than allowed, 5 if noise hides that.

    Costs that need no clock (MACs, parameters, size, operators, activation memory, and the latency by a table) are
    compared first. Then both networks are timed in turns, until the whole interval of their ratio lies on one side of
    the limit; a slowdown must be confirmed by a rerun. --gate auto lets the measured latency fail on a quiet machine
    only, not on CI runners, where it is shown beside the others.

    \b
    Examples:
      nas2edge check bundles/new --baseline bundles/old --max-slowdown 5%
      nas2edge check new.onnx --baseline baseline.json --gate deterministic --summary summary.md
      nas2edge check bundles/new --max-latency 20ms --device jetson
      nas2edge check --tables latency_tables
    """
    if new is None:
        if tables is None:
            raise InputError("there is nothing to check; give NEW with --baseline or --max-latency, or --tables alone")
        from nas2edge.cli._check_tables import check_tables

        check_tables(tables, rows=rows, as_json=as_json)
        return
    from nas2edge.bench.artefact import find_artefact
    from nas2edge.bench.check import Request
    from nas2edge.bench.measure import Options

    for path in (save, summary):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    artefact = find_artefact(new, runtime=runtime, shape=shape)
    request = Request(
        new=artefact,
        old=None if baseline is None else _baseline(baseline, artefact, runtime=runtime, shape=shape),
        max_slowdown=max_slowdown,
        max_growth=max_growth,
        max_latency_ms=max_latency,
        table=_table(device, tables),
        mode=gate,
        budget_s=budget,
        options=Options(threads=threads, time_limit_s=time_limit, same_input=not different_inputs),
    )
    _run(request, baseline=baseline, save=save, summary=summary, as_json=as_json)


def _run(request: Request, *, baseline: str | None, save: Path | None, summary: Path | None, as_json: bool) -> None:
    from nas2edge.bench.check import check
    from nas2edge.bench.summary import report_markdown
    from nas2edge.cli._check_output import check_progress, render_gate, render_notes, report_dict

    console = result_console(as_json=as_json)
    with check_progress(request.budget_s) as progress:
        report = check(request, on_gate=lambda gate: render_gate(console, gate), progress=progress)
    render_notes(console, report)
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(report_markdown(report, new=request.new.name, old=baseline) + "\n")
    if save is not None and report.exit_code != RegressionError.exit_code:
        _save(save, request)
        console.print(f"stored the result in {save}", markup=False)
    if as_json:
        echo_json(report_dict(report, new=request.new.name, old=baseline))
    _raise(report, request.new.name)


def _baseline(name: str, new: Artefact, *, runtime: str | None, shape: tuple[int, ...] | None) -> Any:
    from nas2edge.bench.artefact import find_artefact
    from nas2edge.bench.result import read_stored

    path = Path(name)
    if path.suffix == ".json":
        return read_stored(path)
    return find_artefact(name, runtime=runtime, shape=shape)


def _table(device: str | None, tables: Path | None) -> Any:
    if device is None:
        return None
    from nas2edge.latency.registry import load_table

    return load_table(device, tables=tables)


def _save(path: Path, request: Request) -> None:
    from nas2edge.bench.check import DETERMINISTIC
    from nas2edge.bench.compare import measure_all
    from nas2edge.bench.fingerprint import conditions, take_fingerprint
    from nas2edge.bench.result import results_dict, untimed_result
    from nas2edge.files import write_json

    before = conditions()
    if request.mode == DETERMINISTIC:
        write_json(path, results_dict([untimed_result(request.new)], fingerprint=None, conditions=before))
        return
    results, _, _ = measure_all([request.new], request.options)
    runtimes = tuple(result.runtime for result in results)
    fingerprint = take_fingerprint(runtimes=runtimes, threads=request.options.threads)
    write_json(path, results_dict(results, fingerprint=fingerprint, conditions=before))


def _raise(report: Report, name: str) -> None:
    from nas2edge.bench.gate import FAILED, INCONCLUSIVE

    named = {
        verdict: [f"{gate.name}: {gate.detail}" for gate in report.gates if gate.hard and gate.verdict == verdict]
        for verdict in (FAILED, INCONCLUSIVE)
    }
    if report.verdict == FAILED:
        raise RegressionError(f"{name} is slower or larger than allowed. " + ". ".join(named[FAILED]))
    if report.verdict == INCONCLUSIVE:
        raise InconclusiveError(f"no verdict on {name}. " + ". ".join(named[INCONCLUSIVE]))
