"""nas2edge report: a search's front as one HTML page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nas2edge.cli._common import echo_json, json_option, result_console
from nas2edge.files import read_document, write_text
from nas2edge.latency.table import LatencyTable
from nas2edge.report.front_data import FORMAT, VERSION, check_document
from nas2edge.report.search_page import search_page, table_notes


@click.command("report")
@click.argument("pareto", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True,
              help="The page.")  # fmt: skip
@click.option("--subnet", default="subnet.json", show_default=True, help="Where the chosen sub-network was written.")
@click.option("--tables", type=click.Path(path_type=Path), help="Folder of latency tables of your own.")
@json_option
def command(pareto: Path, out: Path, subnet: str, tables: Path | None, as_json: bool) -> None:
    """Show a search's front as one HTML page that opens offline.

    PARETO is a pareto.json, as search writes it. Where the latency tables of the search are at hand, the page also
    shows where each sub-network's milliseconds go, block by block.

    Example: nas2edge report pareto.json --out report.html
    """
    document = read_document(pareto, format=FORMAT, version=VERSION)
    check_document(document)
    found = _tables(document, tables)
    page = search_page(document, tables=found, subnet_path=subnet)
    write_text(out, page)
    notes, size = table_notes(document, found), len(page.encode())
    if as_json:
        echo_json({"format": "nas2edge.report", "version": 1, "report": str(out), "size_bytes": size,
                   "points": len(document["points"]), "notes": notes})  # fmt: skip
    console = result_console(as_json=as_json)
    for name, note in notes.items():
        console.print(f"[yellow]note:[/] {name}: {note}", soft_wrap=True)
    console.print(f"wrote: {out} ({size / 1000:.0f} kB, {len(document['points'])} points)", soft_wrap=True)


def _tables(document: Mapping[str, Any], folder: Path | None) -> dict[str, LatencyTable]:
    """Returns the tables of the document's devices that are found and readable; the page notes the others."""
    if not document["devices"]:
        return {}
    from nas2edge.latency.registry import list_tables

    known = {entry.name: entry.table for entry in list_tables(folder)}
    return {name: table for name in document["devices"] if (table := known.get(name)) is not None}
