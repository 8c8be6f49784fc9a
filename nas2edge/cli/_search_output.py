"""What `nas2edge search` writes and prints."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas2edge.cli._search_accuracy import binomial_error
from nas2edge.errors import InputError
from nas2edge.files import atomic_path
from nas2edge.search import Candidate, SearchResult
from nas2edge.search.limits import summary
from nas2edge.search.pareto_file import Origin, TableSource, chosen_subnet, pareto_to_dict
from nas2edge.subnet_file import subnet_to_dict
from nas2edge.units import format_bytes, format_count, format_energy, format_latency

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from nas2edge.latency.table import LatencyTable

SHOWN_ROWS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where a search writes.

    Args:
        subnets: A file for each choice, or one of all.
        front: The whole front.
        report: The page; None for none.
    """

    subnets: tuple[Path, ...]
    front: Path
    report: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "subnet": str(self.subnets[0]),
            "pareto": str(self.front),
            "subnets": [str(path) for path in self.subnets],
            "report": None if self.report is None else str(self.report),
        }


def check_outputs(out: Path, front: Path, report: Path | None, *, latencies: Sequence[float]) -> Outputs:
    """Returns the files to write: of several limits, `out` becomes subnet-20ms.json and so on.

    Raises:
        InputError: Two files are the same, or a folder does not exist. Before the search, since that may take minutes.
    """
    labels = [format_latency(latency).replace(" ", "") for latency in latencies]
    subnets = tuple(out.with_name(f"{out.stem}-{label}{out.suffix}") for label in labels) or (out,)
    others = {"--front": front} | ({"--report": report} if report else {})
    for i, path in enumerate(subnets):
        if path in subnets[:i]:
            raise InputError(f"two limits of --latency would both write {path}; give limits that differ by more")
    taken = {path.resolve(): "--out" for path in subnets}
    for option, path in others.items():
        if path.resolve() in taken:
            raise InputError(f"{taken[path.resolve()]} and {option} are both {path}; give two files")
        taken[path.resolve()] = option
    for path in (*subnets, *others.values()):
        if not path.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    return Outputs(subnets=subnets, front=front, report=report)


def documents(result: SearchResult, origin: Origin, *, n: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the first n choices as subnet.json, and the front as pareto.json."""
    subnets = [subnet_to_dict(chosen_subnet(result, origin, choice=choice)) for choice in result.choices[:n]]
    return subnets, pareto_to_dict(result, origin)


def write_all(
    outputs: Outputs,
    subnets: Sequence[Mapping[str, Any]],
    pareto: Mapping[str, Any],
    *,
    result: SearchResult,
    tables: Mapping[str, LatencyTable],
) -> None:
    """Writes all files in one step at the end, or none."""
    texts = {path: _to_text(subnet) for path, subnet in zip(outputs.subnets, subnets, strict=True)}
    texts[outputs.front] = _to_text(pareto)
    if outputs.report is not None:
        texts[outputs.report] = _page(outputs, pareto, result=result, tables=tables)
    with ExitStack() as stack:
        parts = [stack.enter_context(atomic_path(path)) for path in texts]
        for part, text in zip(parts, texts.values(), strict=True):
            part.write_text(text, encoding="utf-8")


def _page(
    outputs: Outputs, pareto: Mapping[str, Any], *, result: SearchResult, tables: Mapping[str, LatencyTable]
) -> str:
    from nas2edge.report.search_page import Dominated, search_page

    dominated = None
    if result.dominated is not None and len(result.dominated):
        columns = {(o.metric, o.device): result.dominated[:, i].tolist()
                   for i, o in enumerate(result.front.objectives)}  # fmt: skip
        accuracy = columns.pop(("accuracy", None))
        dominated = Dominated(accuracy=accuracy, values=columns, total=result.evaluations - len(result.front))
    return search_page(
        pareto,
        tables=tables,
        dominated=dominated,
        subnet_path=[str(path) for path in outputs.subnets],
        command=_command_line(),
    )


def _command_line() -> str:
    """Returns the command as it was typed; "" where another program called it."""
    return shlex.join(["nas2edge", *sys.argv[1:]]) if Path(sys.argv[0]).name in ("nas2edge", "__main__.py") else ""


def _to_text(value: Mapping[str, Any]) -> str:
    """Returns indented JSON, but for points of a front, which take a line each."""
    points = value.get("points")
    text = json.dumps({**value, "points": []} if points else value, indent=2)
    if points:
        text = text.replace(
            '"points": []', '"points": [\n' + ",\n".join("    " + json.dumps(p) for p in points) + "\n  ]"
        )
    return text + "\n"


def one_for_all_to_dict(result: SearchResult) -> dict[str, Any]:
    """Returns what one sub-network for all devices, the first choice, costs against one for each, the others."""
    devices: dict[str, dict[str, Any]] = {
        str(choice.constraints[-1].device): {
            "id": choice.candidate.subnet.id,
            "accuracy": choice.candidate.accuracy,
            "loss": choice.candidate.accuracy - result.best.accuracy,
        }
        for choice in result.choices[1:]
    }
    return {
        "id": result.best.subnet.id,
        "accuracy": result.best.accuracy,
        "worst_loss": max(entry["loss"] for entry in devices.values()),
        "devices": devices,
    }


def render(
    console: Console,
    result: SearchResult,
    origin: Origin,
    *,
    seconds: float,
    outputs: Outputs,
    one_for_all: bool,
) -> None:
    """Prints what was found, where each figure comes from, and what is next."""
    console.print(_front_table(result, origin))
    several = len(outputs.subnets) > 1
    for choice in result.choices[: len(outputs.subnets)]:
        subnet = choice.candidate.subnet
        within = f" for {choice.constraints[-1].describe()}" if several else ""
        console.print(f"chosen{within}: {subnet.id}  {summary(subnet)}", soft_wrap=True)
        _print_figures(console, choice.candidate, origin)
    if one_for_all:
        _print_one_for_all(console, result)
    for limit in result.limits:
        if limit.binds is False:
            console.print(f"[yellow]note:[/] {limit.describe()}", soft_wrap=True)
    console.print(_account(result, seconds=seconds), soft_wrap=True)
    written = ", ".join(map(str, outputs.subnets))
    page = f", {outputs.report}" if outputs.report else ""
    console.print(f"wrote: {written}, {outputs.front} ({len(result.front)} points){page}", soft_wrap=True)
    weights = "" if origin.supernet else " --supernet RUN   (weights of this space; none were used here)"
    console.print(f"next: nas2edge export {outputs.subnets[0]} --to onnx{weights}", soft_wrap=True)


def _print_figures(console: Console, chosen: Candidate, origin: Origin) -> None:
    error = origin.accuracy.error if chosen.accuracy_sigma is None else chosen.accuracy_sigma
    console.print(
        f"accuracy: {chosen.accuracy:.2f} % ± {error:.2f} from {origin.accuracy.source} ({origin.accuracy.note})",
        soft_wrap=True,
    )
    if chosen.measured_accuracy is not None and origin.accuracy.images is not None:
        error = binomial_error(chosen.measured_accuracy, origin.accuracy.images)
        console.print(
            f"  evaluated: {chosen.measured_accuracy:.2f} % ± {error:.2f} by the supernet on "
            f"{origin.accuracy.images} validation images",
            soft_wrap=True,
        )
    for name, table in origin.tables.items():
        console.print(f"latency on {name}: {_latency_account(chosen, name, table)}", soft_wrap=True)
        if name in chosen.energy_mj:
            console.print(f"energy on {name}: {format_energy(chosen.energy_mj[name])}, measured", soft_wrap=True)
    memory = "" if chosen.memory_bytes is None else f", {format_bytes(chosen.memory_bytes)} of activations at once"
    console.print(f"in fp32: {format_bytes(chosen.size_bytes)} of parameters{memory}", soft_wrap=True)


def _print_one_for_all(console: Console, result: SearchResult) -> None:
    account = one_for_all_to_dict(result)
    for name, entry in account["devices"].items():
        console.print(
            f"alone on {name}: {entry['accuracy']:.2f} %, {entry['id']}; one for all loses {entry['loss']:.2f}",
            soft_wrap=True,
        )
    console.print(f"one for all devices loses {account['worst_loss']:.2f} points at worst", soft_wrap=True)


def _front_table(result: SearchResult, origin: Origin) -> Table:
    from rich import box
    from rich.table import Table

    title = f"front of {origin.space.name}, the chosen one marked *"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column(f"top-1 %\n{origin.accuracy.source}", justify="right")
    shown = _shown(result)
    evaluated = any(candidate.measured_accuracy is not None for candidate in shown)
    if evaluated:
        table.add_column("top-1 %\nsupernet", justify="right")
    for name, entry in origin.tables.items():
        table.add_column(f"{name}\n{entry.kind}", justify="right")
    for heading in ("MACs", "parameters", "input"):
        table.add_column(heading, justify="right")
    chosen = {choice.candidate.subnet for choice in result.choices}
    for candidate in shown:
        latencies = [_latency(candidate, name) for name in origin.tables]
        counts = [format_count(candidate.macs), format_count(candidate.params), str(candidate.subnet.resolution)]
        marked = candidate.subnet in chosen
        measured = "" if candidate.measured_accuracy is None else f"{candidate.measured_accuracy:.2f}"
        accuracies = [f"{candidate.accuracy:.2f}", *([measured] if evaluated else [])]
        cells = ["*" if marked else "", *accuracies, *latencies, *counts]
        table.add_row(*cells, style="bold" if marked else None)
    return table


def _shown(result: SearchResult) -> list[Candidate]:
    """Returns about a dozen candidates at even steps along the front, the chosen ones among them."""
    points = list(result.front)
    steps = np.linspace(0, len(points) - 1, min(SHOWN_ROWS, len(points))).round().astype(int)
    shown = {points[i].subnet for i in steps.tolist()} | {choice.candidate.subnet for choice in result.choices}
    return [candidate for candidate in points if candidate.subnet in shown]


def _latency(candidate: Candidate, name: str) -> str:
    """Writes a latency and its error in one unit and with equal decimals: 2.60 ± 0.67 ms."""
    latency, sigma = candidate.latency_ms[name], candidate.latency_sigma_ms[name]
    unit = format_latency(latency).split()[-1]
    scale = {"s": 1e-3, "ms": 1.0, "us": 1e3}[unit]
    decimals = max(0, 2 - math.floor(math.log10(latency * scale)))
    return f"{latency * scale:.{decimals}f} ± {sigma * scale:.{decimals}f} {unit}"


def _latency_account(chosen: Candidate, name: str, table: TableSource) -> str:
    share = chosen.measured_share.get(name)
    measured = "" if share is None else f"; {100 * share:.0f} % of it from measured rows"
    return f"{_latency(chosen, name)}, {table.kind}{measured}"


def _account(result: SearchResult, *, seconds: float) -> str:
    ends = {
        "budget": "",
        "exhausted": "; that is the whole space, so the front is exact",
        "stalled": "; new ones that keep the limits could not be found",
    }
    if result.exactness:
        fitted, bound = result.exactness.fit_error, result.exactness.bound
        return (
            f"searched: exactly, {seconds:.2f} s; a sum over stages stands for the accuracy, {fitted:.2g} points off "
            f"(root mean square); by that sum no sub-network within the limits exceeds {bound:.2f} %"
        )
    return (
        f"searched: {result.evaluations:,} accuracies, {result.examined:,} candidates examined, {seconds:.2f} s, "
        f"seed {result.seed}{ends[result.stop]}"
    )
