"""Packs: the models of a table with a script for a device that has a benchmark tool but no Python.

A pack is a .tar.gz with one folder: the models of all blocks, borders and networks (`nas2edge.latency.items`), a POSIX
shell script, the order of its visits, and a manifest that says what each model is. The script measures twice, in two
random orders, with a reference model in between; it goes on after an interruption, and writes results.tar.gz. What came
back is read by `nas2edge.latency.ingest`, with the same rules as a measurement on this machine.

>>> write_pack(Path("pack.tar.gz"), request, tool=TOOLS["trtexec"], precision="fp16", threads=None)  # doctest: +SKIP
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from nas2edge._version import __version__
from nas2edge.errors import InputError
from nas2edge.files import atomic_path
from nas2edge.latency.items import Net, block_items, border_items
from nas2edge.latency.measure import REFERENCE, Request, all_nets
from nas2edge.latency.ncnn_model import ncnn_border, ncnn_model
from nas2edge.latency.pack_script import script
from nas2edge.latency.protocol import Item
from nas2edge.latency.target import Quantise, item_model
from nas2edge.latency.tools import Tool, check_tool

FORMAT, VERSION = "nas2edge.latency_pack", 1
FOLDER = "nas2edge-pack"
REFERENCE_EVERY = 20
SESSIONS = 2

_PATTERN = 1024  # weights repeat after so many values: no runtime minds, and the pack shrinks a hundredfold

Convert = Callable[[Mapping[str, bytes]], Mapping[str, bytes]]
"""Turns ONNX models into models of another format, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedItem:
    """One model of a pack: its file's name, and the item that it is."""

    name: str
    item: Item


def packed_items(request: Request) -> tuple[list[PackedItem], list[Net]]:
    """Returns the items of a request with the names of their files, the reference first; and its networks."""
    blocks = list(request.blocks.values())
    nets = all_nets(request)
    items = [*block_items(blocks), *border_items(blocks), *(net.item for net in nets)]
    return [PackedItem(name="reference", item=REFERENCE)] + [
        PackedItem(name=f"i{number:05d}", item=item) for number, item in enumerate(items)
    ], nets


def write_pack(
    path: Path,
    request: Request,
    *,
    tool: Tool,
    precision: str,
    threads: int | None,
    batch: int = 1,
    seconds: float = 0.5,
    quantise: Quantise | None = None,
    convert: Convert | None = None,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> int:
    """Writes a pack; returns how many models it holds.

    Args:
        path: The .tar.gz.
        request: Which spaces, how many networks, which seed.
        tool: What measures on the device.
        precision: Of its arithmetic.
        threads: CPU threads; None leaves that to the tool.
        batch: Images in a run.
        seconds: Timed runs of a model in each of two sessions.
        quantise: Makes int8 graphs; needed for that precision.
        convert: Makes models of the tool's format from ONNX; needed for TFLite.
        progress: Called with (done, planned).

    Raises:
        InputError: The tool cannot measure so, or the file cannot be written.
    """
    check_tool(tool, precision=precision, batch=batch)
    if not path.name.endswith(".tar.gz"):
        raise InputError(f"--pack {path} does not end in .tar.gz")
    items, nets = packed_items(request)
    rng = np.random.default_rng([request.seed, 3])
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "nas2edge": __version__,
        "tool": tool.name,
        "precision": precision,
        "threads": threads or (1 if "$THREADS" in tool.options[precision] else None),
        "batch": batch,
        "seconds": seconds,
        "seed": request.seed,
        "nets": request.nets,
        "spaces": [{"name": space.name, "digest": space.digest} for space in request.spaces],
        "items": [{"name": packed.name, "id": packed.item.id} for packed in items],
        "networks": len(nets),
    }
    # No time of writing in it: equal requests give equal packs, so that a device goes on with them.
    with (
        atomic_path(path) as part,
        part.open("wb") as stream,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        _add(archive, "manifest.json", json.dumps(manifest, indent=1).encode())
        _add(
            archive, "run.sh", script(tool, precision=precision, threads=threads, seconds=seconds).encode(), mode=0o755
        )
        _add(archive, "order.txt", _order(items, tool, batch=batch, rng=rng).encode())
        for done, (name, content) in enumerate(
            _models(
                items, tool, batch=batch, rng=rng, quantise=quantise if precision == "int8" else None, convert=convert
            ),
            start=1,
        ):
            _add(archive, f"models/{name}{tool.suffix}", content)
            progress(done, len(items))
    return len(items)


def shape_of(item: Item, *, batch: int) -> tuple[int, int, int, int]:
    """Returns the shape of an item's input."""
    if item.border is not None:
        return (batch, 1, item.border[0], item.border[0])
    first = item.layers[0]
    return (batch, first.in_chs if first.op == "first_conv" else 1, first.hw_in, first.hw_in)


def _order(items: Sequence[PackedItem], tool: Tool, *, batch: int, rng: np.random.Generator) -> str:
    """One line a visit: its number, the model, and the shape of its input as benchncnn wants it."""
    lines: list[str] = []

    def visit(session: int, packed: PackedItem) -> None:
        _, chs, height, width = shape_of(packed.item, batch=batch)
        lines.append(f"{len(lines):06d}-s{session}-{packed.name} {packed.name} [{width},{height},{chs}]")

    reference, others = items[0], items[1:]
    for session in range(SESSIONS):
        for place, i in enumerate(rng.permutation(len(others)).tolist()):
            if place % REFERENCE_EVERY == 0:
                visit(session, reference)
            visit(session, others[i])
        visit(session, reference)
    return "\n".join(lines) + "\n"


def _models(
    items: Sequence[PackedItem],
    tool: Tool,
    *,
    batch: int,
    rng: np.random.Generator,
    quantise: Quantise | None,
    convert: Convert | None,
) -> Iterator[tuple[str, bytes]]:
    if tool.suffix == ".param":
        for packed in items:
            yield packed.name, _param(packed.item).encode()
        return
    made = ((packed.name, _onnx(packed.item, batch=batch, rng=rng, quantise=quantise)) for packed in items)
    if tool.suffix == ".onnx":
        yield from made
        return
    if convert is None:
        raise InputError(f"{tool.name} reads {tool.suffix} models, and there is no converter")
    yield from convert(dict(made)).items()


def _onnx(item: Item, *, batch: int, rng: np.random.Generator, quantise: Quantise | None) -> bytes:
    model = item_model(item, rng=rng, batch=batch)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size > _PATTERN:
            repeated = np.resize(values.ravel()[:_PATTERN], values.shape)
            tensor.CopyFrom(numpy_helper.from_array(repeated, tensor.name))
    content: bytes = (quantise(model) if quantise is not None else model).SerializeToString()
    return content


def _param(item: Item) -> str:
    """benchncnn makes up the weights, so a .param file is all it needs."""
    if item.border is not None:
        return ncnn_border(item.border)[0]
    first, last = item.layers[0], item.layers[-1]
    whole = first.op == "first_conv" and last.op == "mbpool"
    zeros: dict[str, Any] = {}
    for layer in item.layers:
        for op in layer.ops:
            zeros[f"{layer.name}.{op.name}.weight"] = np.zeros(op.weight_shape, dtype=np.float32)
            if op.bias or op.bn:
                zeros[f"{layer.name}.{op.name}.bias"] = np.zeros(op.out_chs, dtype=np.float32)
    return ncnn_model(item.layers, zeros, bordered=not whole)[0]


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(f"{FOLDER}/{name}")
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
