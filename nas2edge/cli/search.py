"""nas2edge search: the best sub-network for a device and its limits, and the whole front beside it."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from nas2edge.additive import AdditiveMetric
from nas2edge.cli._common import Quantity, echo_json, json_option, result_console
from nas2edge.costs import count
from nas2edge.errors import InputError
from nas2edge.files import atomic_path
from nas2edge.plan import LayerSpec, plan
from nas2edge.search import Candidate, Constraint, SearchResult, search
from nas2edge.search.limits import Metric, summary
from nas2edge.search.pareto_file import AccuracySource, Origin, TableSource, chosen_subnet, pareto_to_dict
from nas2edge.search.run import codes_from_evaluator
from nas2edge.space import SearchSpace
from nas2edge.spaces import load_space
from nas2edge.subnet_file import subnet_to_dict
from nas2edge.units import format_count, format_latency, parse_count, parse_latency_ms

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from nas2edge.latency.table import LatencyTable

DEFAULT_SUPERNET = "builtin:tiny"
SHOWN_ROWS = 12
SMALL_MACS = 50_000_000
"""Smaller networks gain little from threads, and lose much where another process has a core."""


@click.command("search")
@click.option("--device", "devices", multiple=True, metavar="NAME[:LIMIT]", help="Latency table; repeatable: pi:50ms.")
@click.option("--latency", type=Quantity("LATENCY", parse_latency_ms), help="Limit of every device without its own.")
@click.option("--macs", type=Quantity("COUNT", parse_count), help="Limit of multiply-accumulates, such as 300M.")
@click.option("--params", type=Quantity("COUNT", parse_count), help="Limit of parameters, such as 5M.")
@click.option("--supernet", help=f"Weights to search: a run's folder or file.  [default: {DEFAULT_SUPERNET}]")
@click.option("--space", "space_name", help="Search a space without weights: attentivenas.")
@click.option("--tables", type=click.Path(path_type=Path), help="Folder of latency tables of your own.")
@click.option("--data", type=click.Path(path_type=Path), help="Validation images of your own for --supernet.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads for --supernet.  [default: by its size]")
@click.option("--evaluations", type=click.IntRange(min=1), help="Accuracies to evaluate.  [default: by their cost]")
@click.option("--population", type=click.IntRange(min=2), help="Candidates in a round.  [default: by their cost]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Equal seeds, equal results.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("subnet.json"), show_default=True,
              help="The chosen sub-network.")  # fmt: skip
@click.option("--front", type=click.Path(path_type=Path), default=Path("pareto.json"), show_default=True,
              help="All sub-networks worth a choice.")  # fmt: skip
@json_option
def command(
    devices: tuple[str, ...],
    latency: float | None,
    macs: int | None,
    params: int | None,
    supernet: str | None,
    space_name: str | None,
    tables: Path | None,
    data: Path | None,
    threads: int | None,
    evaluations: int | None,
    population: int | None,
    seed: int,
    out: Path,
    front: Path,
    as_json: bool,
) -> None:
    """Find the most accurate sub-network that keeps the limits, and the whole trade-off beside it.

    Examples:

    \b
      nas2edge search --device jetson --latency 20ms
      nas2edge search --space attentivenas --device pixel:30ms --device raspberry-pi:200ms
    """
    started = time.perf_counter()
    _check_outputs(out, front)
    limits = _device_limits(devices, latency)
    loaded = _load_tables(limits, tables)
    source = _accuracy(supernet=supernet, space_name=space_name, data=data, threads=threads)
    constraints = _constraints(loaded, macs=macs, params=params)
    with _progress(source, evaluations or source.evaluations) as advance:
        result = search(
            source.space,
            accuracy=source.metric(advance),
            latency={name: table.metric(source.space) for name, (table, _) in loaded.items()},
            latency_sigma={name: table.sigma_metric(source.space) for name, (table, _) in loaded.items()},
            measured_share={name: _measured_share(table, source.space) for name, (table, _) in loaded.items()},
            constraints=constraints,
            evaluations=evaluations or source.evaluations,
            population=population or source.population,
            seed=seed,
            guided=source.guided,
        )
    origin = Origin(
        space=source.space,
        accuracy=source.stated(result.best.accuracy),
        tables={name: TableSource(kind=table.kind, digest=table.digest) for name, (table, _) in loaded.items()},
        supernet=source.supernet,
    )
    subnet, pareto = subnet_to_dict(chosen_subnet(result, origin)), pareto_to_dict(result, origin)
    _write_both({out: subnet, front: pareto})
    seconds = time.perf_counter() - started
    if as_json:
        files = {"subnet": str(out), "pareto": str(front)}
        echo_json({"format": "nas2edge.search", "version": 1, "seconds": round(seconds, 3), "files": files,
                   "subnet": subnet, "pareto": pareto})  # fmt: skip
    _render(result_console(as_json=as_json), result, origin, seconds=seconds, out=out, front=front)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Accuracy:
    """An accuracy source with what follows from its cost."""

    space: SearchSpace
    evaluate: Metric
    tested: int | None
    error: float
    note: str
    supernet: Mapping[str, str] | None
    evaluations: int
    population: int

    @property
    def guided(self) -> bool:
        return self.tested is not None

    def metric(self, advance: Callable[[int], None]) -> Metric:
        if not self.guided:
            return self.evaluate

        def one_by_one(codes: Any) -> Any:
            values = []
            for i in range(len(codes)):
                values.append(float(self.evaluate(codes[i : i + 1])[0]))
                advance(1)
            return np.array(values)

        return one_by_one

    def stated(self, accuracy: float) -> AccuracySource:
        if self.tested is None:
            return AccuracySource(source="published-points", error=self.error, note=self.note)
        error = math.sqrt(accuracy * (100.0 - accuracy) / self.tested)
        return AccuracySource(source="supernet", error=error, note=self.note)


def _accuracy(*, supernet: str | None, space_name: str | None, data: Path | None, threads: int | None) -> _Accuracy:
    if supernet and space_name:
        raise InputError("--supernet and --space exclude each other: a supernet brings its own space")
    if space_name is None or space_name == "tiny":
        return _supernet_accuracy(supernet or DEFAULT_SUPERNET, data, threads)
    if data is not None:
        raise InputError("--data are images to run a supernet on; give --supernet instead of --space")
    return _published_accuracy(load_space(space_name))


def _supernet_accuracy(supernet: str, data: Path | None, threads: int | None) -> _Accuracy:
    from nas2edge.optional import require
    from nas2edge.supernet.weights_file import supernet_info

    info = supernet_info(supernet)
    require("torch", "PIL", extra="export", purpose="measuring accuracy")
    import torch

    from nas2edge.supernet.checkpoint import load_supernet
    from nas2edge.supernet.evaluate import make_evaluator

    small = count(plan(info.space, info.space.largest())).macs < SMALL_MACS
    if threads or small:
        torch.set_num_threads(threads or 1)

    evaluator = make_evaluator(load_supernet(supernet), data=data)
    return _Accuracy(
        space=info.space,
        evaluate=codes_from_evaluator(info.space, evaluator),
        tested=evaluator.tested,
        error=0.0,
        note=f"standard error on {evaluator.tested} validation images",
        supernet={"source": supernet, "sha256": info.sha256},
        evaluations=100,
        population=16,
    )


def _published_accuracy(space: SearchSpace) -> _Accuracy:
    from nas2edge.search.published import PublishedAccuracy
    from nas2edge.spaces.published import ALPHANET

    accuracy = PublishedAccuracy(space)
    return _Accuracy(
        space=space,
        evaluate=accuracy,
        tested=None,
        error=accuracy.rms_error,
        note=f"a curve over MACs through {len(ALPHANET)} published networks, each left out in turn; "
        f"at most {accuracy.max_error:.2f} off there, and blind to all but MACs",
        supernet=None,
        evaluations=50_000,
        population=200,
    )


def _device_limits(devices: Sequence[str], latency: float | None) -> dict[str, float | None]:
    """Reads NAME and NAME:LIMIT; a device without a limit of its own gets the common one."""
    if latency is not None and not devices:
        raise InputError("--latency needs a device to hold it on: --device NAME (see: nas2edge devices)")
    limits: dict[str, float | None] = {}
    for text in devices:
        name, colon, limit = text.rpartition(":")
        name = name if colon else limit
        if name in limits:
            raise InputError(f"--device {name} is given twice; give each device once")
        limits[name] = parse_latency_ms(limit) if colon else latency
    return limits


def _load_tables(
    limits: Mapping[str, float | None], folder: Path | None
) -> dict[str, tuple[LatencyTable, float | None]]:
    """Returns each device's table and limit under the device's full name."""
    if not limits:
        return {}
    from nas2edge.latency.registry import load_table

    loaded: dict[str, tuple[LatencyTable, float | None]] = {}
    for name, limit in limits.items():
        table = load_table(name, tables=folder)
        if table.device.name in loaded:
            raise InputError(f"--device {name} is {table.device.name}, which is given already; give each device once")
        loaded[table.device.name] = (table, limit)
    return loaded


def _measured_share(table: LatencyTable, space: SearchSpace) -> Metric:
    """Returns what `LatencyTable.estimate` calls measured_share, as a metric of populations."""
    if table.kind == "estimated":
        return lambda codes: np.zeros(len(codes))

    def measured_ms(layer: LayerSpec) -> float:
        row = table.row(layer)
        return row.ms if row.status == "measured" else 0.0

    measured, total = AdditiveMetric(space, measured_ms), AdditiveMetric(space, lambda layer: table.row(layer).ms)
    return lambda codes: measured(codes) / total(codes)


def _constraints(
    loaded: Mapping[str, tuple[LatencyTable, float | None]], *, macs: int | None, params: int | None
) -> list[Constraint]:
    constraints = [
        Constraint(metric="latency_ms", limit=limit, device=name)
        for name, (_, limit) in loaded.items()
        if limit is not None
    ]
    counts = {"macs": macs, "params": params}
    return constraints + [Constraint(metric=name, limit=limit) for name, limit in counts.items() if limit is not None]


def _check_outputs(out: Path, front: Path) -> None:
    # Before the search rather than after it, since a search may take minutes.
    if out.resolve() == front.resolve():
        raise InputError(f"--out and --front are both {out}; give two files")
    for path in (out, front):
        if not path.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {path.parent}")


def _write_both(files: Mapping[Path, Mapping[str, Any]]) -> None:
    (first, one), (second, other) = files.items()
    with atomic_path(first) as first_part, atomic_path(second) as second_part:
        first_part.write_text(json.dumps(one, indent=2) + "\n", encoding="utf-8")
        second_part.write_text(json.dumps(other, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _progress(source: _Accuracy, total: int) -> Iterator[Callable[[int], None]]:
    """Yields what to call with the number of accuracies evaluated; draws a bar where someone may look."""
    if not source.guided:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        click.echo(f"evaluating up to {total} sub-networks on {source.tested} images each", err=True)
        yield lambda _: None
        return
    from rich.progress import Progress

    with Progress(console=result_console(as_json=True), transient=True) as bar:
        task = bar.add_task("evaluating accuracies", total=min(total, source.space.size))
        yield lambda n: bar.advance(task, n)


def _render(console: Console, result: SearchResult, origin: Origin, *, seconds: float, out: Path, front: Path) -> None:
    best = result.best
    console.print(_front_table(result, origin))
    console.print(f"chosen: {best.subnet.id}  {summary(best.subnet)}", soft_wrap=True)
    console.print(
        f"accuracy: {best.accuracy:.2f} % ± {origin.accuracy.error:.2f} from {origin.accuracy.source} "
        f"({origin.accuracy.note})",
        soft_wrap=True,
    )
    for name, table in origin.tables.items():
        console.print(f"latency on {name}: {_latency_account(best, name, table)}", soft_wrap=True)
    for limit in result.limits:
        if limit.binds is False:
            console.print(f"[yellow]note:[/] {limit.describe()}", soft_wrap=True)
    console.print(_account(result, seconds=seconds), soft_wrap=True)
    console.print(f"wrote: {out}, {front} ({len(result.front)} points)", soft_wrap=True)
    weights = "" if origin.supernet else " --supernet RUN   (weights of this space; none were used here)"
    console.print(f"next: nas2edge export {out} --to onnx{weights}", soft_wrap=True)


def _front_table(result: SearchResult, origin: Origin) -> Table:
    from rich import box
    from rich.table import Table

    title = f"front of {origin.space.name}, the chosen one marked *"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column(f"top-1 %\n{origin.accuracy.source}", justify="right")
    for name, entry in origin.tables.items():
        table.add_column(f"{name}\n{entry.kind}", justify="right")
    for heading in ("MACs", "parameters", "input"):
        table.add_column(heading, justify="right")
    for candidate in _shown(result):
        latencies = [_latency(candidate, name) for name in origin.tables]
        counts = [format_count(candidate.macs), format_count(candidate.params), str(candidate.subnet.resolution)]
        chosen = candidate.subnet == result.best.subnet
        cells = ["*" if chosen else "", f"{candidate.accuracy:.2f}", *latencies, *counts]
        table.add_row(*cells, style="bold" if chosen else None)
    return table


def _shown(result: SearchResult) -> list[Candidate]:
    """Returns about a dozen candidates at even steps along the front, the chosen one among them."""
    points = list(result.front)
    steps = np.linspace(0, len(points) - 1, min(SHOWN_ROWS, len(points))).round().astype(int)
    shown = {points[i].subnet: points[i] for i in steps.tolist()} | {result.best.subnet: result.best}
    return [candidate for candidate in points if candidate.subnet in shown]


def _latency(candidate: Candidate, name: str) -> str:
    """Writes a latency and its error in one unit and with equal decimals: 2.60 ± 0.67 ms."""
    latency, sigma = candidate.latency_ms[name], candidate.latency_sigma_ms[name]
    unit = format_latency(latency).split()[-1]
    scale = {"s": 1e-3, "ms": 1.0, "us": 1e3}[unit]
    decimals = max(0, 2 - math.floor(math.log10(latency * scale)))
    return f"{latency * scale:.{decimals}f} ± {sigma * scale:.{decimals}f} {unit}"


def _latency_account(best: Candidate, name: str, table: TableSource) -> str:
    share = best.measured_share.get(name)
    measured = "" if share is None else f"; {100 * share:.0f} % of it from measured rows"
    return f"{_latency(best, name)}, {table.kind}{measured}"


def _account(result: SearchResult, *, seconds: float) -> str:
    ends = {
        "budget": "",
        "exhausted": "; that is the whole space, so the front is exact",
        "stalled": "; new ones that keep the limits could not be found",
    }
    return (
        f"searched: {result.evaluations:,} accuracies, {result.examined:,} candidates examined, {seconds:.2f} s, "
        f"seed {result.seed}{ends[result.stop]}"
    )
