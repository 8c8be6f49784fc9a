"""Is our exported network as fast as torch.onnx.export + onnxsim would make it? And how long does exporting take?

Usage: python benchmarks/export.py speed [--cpu 0]     (again to go on where it stopped)
       python benchmarks/export.py operators
       python benchmarks/export.py time
       python benchmarks/export.py report

Five sub-networks of `attentivenas` and five of `tiny`, with random weights, go three ways to ONNX: our emitter,
torch.onnx.export with dynamo=False, and with dynamo=True (which needs onnxscript). Each file passes onnxsim. Then ONNX
Runtime and OpenVINO run all three on one thread, in turn, in fresh processes (nas2edge.bench.measure): the figure is
the median of paired ratios, ours over theirs, with its interval, widened by what two runs of the same file differ by.
`operators` counts what each runtime executes after its own optimisation, which no noise can blur. Results go to
export_results.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime as ort
import torch

from nas2edge.bench.artefact import find_artefact
from nas2edge.bench.measure import Options, Round, measure_round
from nas2edge.bench.stats import median_interval
from nas2edge.errors import InputError
from nas2edge.export.simplify import simplify
from nas2edge.files import write_json
from nas2edge.graph import BN_EPS, fold_batch_norm, network_model, random_weights
from nas2edge.latency.machine import read_machine
from nas2edge.plan import LayerSpec, plan
from nas2edge.runtimes import open_session
from nas2edge.space import SearchSpace, SubnetConfig
from nas2edge.spaces import load_space
from nas2edge.spaces.published import find_published
from nas2edge.supernet.static import StaticNet

RESULTS = Path(__file__).parent / "export_results.json"
PUBLISHED = ("alphanet-a0", "alphanet-a1", "alphanet-a2", "alphanet-a4", "alphanet-a6")
RUNTIMES = ("onnxruntime", "openvino")
OURS, THEIRS = "ours", ("torchscript", "dynamo")
LIMIT = 1.02
"""Ours may be this much slower by the upper end of the interval before it counts as slower."""
MIN_ROUNDS, BUDGET_S = 3, 120.0
OPSET = 17


@click.group()
def main() -> None:
    """Evidence for the exported network's speed."""


@main.command()
@click.option("--cpu", type=click.IntRange(min=0), default=0, show_default=True, help="The core to run on.")
@click.option("--only", help="Only networks whose name has this in it.")
@click.option("--undecided", is_flag=True, help="Measure anew where an interval holds the limit.")
@click.option("--budget", default=BUDGET_S, show_default=True, help="Seconds for one network in one runtime.")
def speed(cpu: int, only: str | None, undecided: bool, budget: float) -> None:
    """Compares the three exporters' files; goes on from what is there."""
    os.sched_setaffinity(0, {cpu})
    torch.set_num_threads(1)
    results = _results()
    for name, layers in networks():
        if only and only not in name:
            continue
        before = {runtime: results["speed"].get(f"{name} {runtime}") for runtime in RUNTIMES}
        due = [name for name, found in before.items() if not found or (undecided and not _decided(found))]
        if not due:
            continue
        with tempfile.TemporaryDirectory() as folder:
            files = export_all(Path(folder), layers)
            results["networks"].setdefault(name, {})["nodes"] = {way: _nodes(path) for way, path in files.items()}
            results["networks"][name]["nodes"]["dynamo without onnxsim"] = _nodes(Path(folder) / "dynamo.raw.onnx")
            for runtime in due:
                results["speed"][f"{name} {runtime}"] = found = compare(files, runtime, budget)
                click.echo(f"{name} {runtime}: {json.dumps(found)}")
                _save(results)


@main.command()
def operators() -> None:
    """Counts the operators that each runtime executes of each file."""
    torch.set_num_threads(1)
    results = _results()
    for name, layers in networks():
        with tempfile.TemporaryDirectory() as folder:
            files = export_all(Path(folder), layers)
            orders = {way: _in_openvino(path) for way, path in files.items()}
            found = {
                way: {"onnxruntime": _in_ort(path), "openvino": _counted(kind for kind, *_ in orders[way])}
                for way, path in files.items()
            }
        same = all(orders[way] == orders[OURS] for way in THEIRS)
        results["networks"].setdefault(name, {}).update(executed=found, same_in_openvino=same)
        totals = {way: {runtime: sum(kinds.values()) for runtime, kinds in by.items()} for way, by in found.items()}
        click.echo(f"{name}: {totals}; the same in OpenVINO, in the same order: {same}")
        _save(results)


@main.command("time")
def time_export() -> None:
    """Times nas2edge export of A0 as a command of its own, imports and checks included."""
    results = _results()
    with tempfile.TemporaryDirectory() as folder:
        run = _random_run(Path(folder))
        taken = []
        for i in range(3):
            started, cpu = time.perf_counter(), os.times()
            subprocess.run(
                [sys.executable, "-m", "nas2edge", "export", "alphanet-a0", "--supernet", str(run), "--to", "onnx",
                 "--out", f"{folder}/bundle{i}"], check=True, capture_output=True,
            )  # fmt: skip
            after = os.times()
            worked = after.children_user + after.children_system - cpu.children_user - cpu.children_system
            taken.append({"seconds": round(time.perf_counter() - started, 2), "cpu_seconds": round(worked, 2)})
            click.echo(f"nas2edge export alphanet-a0 --to onnx: {taken[-1]}")
    layers = plan(load_space("attentivenas"), find_published("alphanet-a0").subnet)
    state = _state(layers)
    started = time.perf_counter()
    network_model(layers, fold_batch_norm(layers, state), opset=OPSET).SerializeToString()
    emitted = time.perf_counter() - started
    results["export_a0"] = {"command": taken, "fold_and_emit_seconds": round(emitted, 3), "load": os.getloadavg()[0]}
    click.echo(f"fold and emit: {emitted:.3f} s")
    _save(results)


@main.command()
def report() -> None:
    """Prints the tables of docs/targets.md."""
    results = _results()
    click.echo("| network | runtime | executed: ours, theirs | ms, ours | ours / torchscript | ours / dynamo |")
    click.echo("|---|---|---|---|---|---|")
    for name, facts in sorted(results["networks"].items()):
        for runtime in RUNTIMES:
            found = results["speed"].get(f"{name} {runtime}")
            if found is None or "executed" not in facts:
                continue
            totals = [sum(facts["executed"][way][runtime].values()) for way in (OURS, *THEIRS)]
            theirs = " and ".join(map(str, sorted(set(totals[1:]))))
            ratios = " | ".join("{ratio:.3f} ({low:.3f} to {high:.3f})".format(**found[way]) for way in THEIRS)
            click.echo(f"| {name} | {runtime} | {totals[0]}, {theirs} | {found['ms']:.3g} | {ratios} |")


def networks() -> Iterator[tuple[str, tuple[LayerSpec, ...]]]:
    """The ten sub-networks: five published ones, and of `tiny` the ends and three drawn at random."""
    space = load_space("attentivenas")
    for name in PUBLISHED:
        yield name, plan(space, find_published(name).subnet)
    tiny = load_space("tiny")
    for name, subnet in _tiny_subnets(tiny).items():
        yield name, plan(tiny, subnet)


def export_all(folder: Path, layers: tuple[LayerSpec, ...]) -> dict[str, Path]:
    """Writes the files of all three ways, and checks that they compute the same.

    Raises:
        InputError: They do not.
    """
    state = _state(layers)
    net = StaticNet(layers).eval()
    net.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()}, strict=False)
    models = {
        OURS: network_model(layers, fold_batch_norm(layers, state), opset=OPSET),
        "torchscript": _traced(net, folder / "torchscript.raw.onnx", dynamo=False),
        "dynamo": _traced(net, folder / "dynamo.raw.onnx", dynamo=True),
    }
    files = {}
    for way, model in models.items():
        files[way] = folder / f"{way}.onnx"
        onnx.save(simplify(model).model, files[way])
    _check_equal(files, layers[0].hw_in)
    return files


def compare(files: dict[str, Path], runtime: str, budget: float) -> dict[str, Any]:
    """Takes rounds until both comparisons are decided or the time is spent."""
    order = [OURS, *THEIRS, OURS]
    artefacts = [find_artefact(str(files[way]), runtime=runtime) for way in order]
    rounds: list[Round] = []
    end = monotonic() + budget
    found: dict[str, Any] = {}
    while len(rounds) < MIN_ROUNDS or (monotonic() < end and not _decided(found)):
        rounds.append(measure_round(artefacts, Options(), number=len(rounds)))
        if len(rounds) >= 2:
            found = _judge(rounds)
    ms = 1e3 * float(np.exp(np.median(np.stack([r.logs for r in rounds])[:, 0])))
    return {"ms": round(ms, 4), "rounds": len(rounds), "runtime": rounds[0].starts[0].runtime, **found}


def _in_ort(path: Path) -> dict[str, int]:
    """Operators after ONNX Runtime's optimisation, as it saves them."""
    optimised = path.with_suffix(".optimised.onnx")
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(optimised)
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return _counted(node.op_type for node in onnx.load(optimised).graph.node)


def _counted(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items()))


def _in_openvino(path: Path) -> list[tuple[str, ...]]:
    """What OpenVINO executes, in its order: kind, kernel, layouts and shape; without constants, which may be copies."""
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    import openvino as ov  # after nas2edge.runtimes, which keeps it from reporting itself over the network

    compiled = ov.Core().compile_model(str(path), "CPU", settings)
    facts = [(op, op.get_rt_info()) for op in compiled.get_runtime_model().get_ops()]
    ordered = sorted(facts, key=lambda fact: int(fact[1]["execOrder"].astype(str)))
    names = ("layerType", "primitiveType", "outputLayouts")
    found = [
        (*(info[name].astype(str) for name in names), *(str(output.shape) for output in op.outputs()))
        for op, info in ordered
    ]
    return [fact for fact in found if fact[0] != "Const"]


def _judge(rounds: list[Round]) -> dict[str, Any]:
    logs = np.stack([r.logs for r in rounds])  # rounds, artefacts, cycles
    ours = (logs[:, 0] + logs[:, 3]) / 2.0
    control = median_interval(logs[:, 3] - logs[:, 0]).estimate
    found: dict[str, Any] = {"control": round(float(np.exp(control)), 4)}
    for i, way in enumerate(THEIRS, start=1):
        interval = median_interval(ours - logs[:, i]).widen(abs(control)).map(lambda log: float(np.exp(log)))
        figures = {"ratio": interval.estimate, "low": interval.low, "high": interval.high}
        found[way] = {name: round(value, 4) for name, value in figures.items()}
    return found


def _decided(found: dict[str, Any]) -> bool:
    return all(found[way]["high"] < LIMIT or found[way]["low"] > LIMIT for way in THEIRS)


def _traced(net: StaticNet, path: Path, *, dynamo: bool) -> onnx.ModelProto:
    side = net.layers[0].hw_in
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    kind: dict[str, Any] = (
        {"dynamo": True, "external_data": False} if dynamo else {"dynamo": False, "opset_version": OPSET}
    )
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (example,), str(path), **names, **kind)
    return onnx.load(path)


def _check_equal(files: dict[str, Path], side: int) -> None:
    images = np.random.default_rng(0).standard_normal((1, 3, side, side)).astype(np.float32)
    outputs = {}
    for way, path in files.items():
        with open_session(path, runtime="onnxruntime") as session:
            outputs[way] = session.run(images)
    scale = max(1.0, float(abs(outputs[OURS]).max()))
    for way in THEIRS:
        if not float(abs(outputs[way] - outputs[OURS]).max()) < 1e-4 * scale:
            raise InputError(f"{way} computes something else than ours; nothing can be compared")


def _state(layers: tuple[LayerSpec, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Weights whose normalisations do nothing but add a bias, so that activations stay in a normal range."""
    folded = random_weights(layers, np.random.default_rng(0))
    state: dict[str, np.ndarray[Any, Any]] = {}
    for layer in layers:
        for op in layer.ops:
            name = f"{layer.name}.{op.name}"
            state[f"{name}.weight"] = folded[f"{name}.weight"]
            if op.bias:
                state[f"{name}.bias"] = folded[f"{name}.bias"]
            if op.bn:
                ones, zeros = np.ones(op.out_chs, np.float32), np.zeros(op.out_chs, np.float32)
                state |= {f"{name}.bn.weight": ones, f"{name}.bn.bias": folded[f"{name}.bias"]}
                state |= {f"{name}.bn.running_mean": zeros, f"{name}.bn.running_var": ones - np.float32(BN_EPS)}
    return state


def _tiny_subnets(space: SearchSpace) -> dict[str, SubnetConfig]:
    drawn = space.decode(space.sample(3, np.random.default_rng(0)))
    return {"tiny smallest": space.smallest(), "tiny largest": space.largest()} | {
        f"tiny {subnet.id[:6]}": subnet for subnet in drawn
    }


def _random_run(folder: Path) -> Path:
    """A run's folder of the attentivenas space with random weights and 40 classes, an image of each for each purpose.

    So the time is that of exporting: of ImageNet's 1,000 classes, measuring the accuracy takes most of it.
    """
    import zipfile

    from PIL import Image

    from nas2edge.supernet.checkpoint import save_supernet
    from nas2edge.supernet.elastic import Supernet
    from nas2edge.supernet.weights_file import Preprocess

    torch.manual_seed(0)
    model = Supernet(replace(load_space("attentivenas"), num_classes=40))
    classes = tuple(f"class{i:04d}" for i in range(model.space.num_classes))
    preprocess = Preprocess(image_size=model.space.image_size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    save_supernet(folder / "supernet.safetensors", model, classes=classes, preprocess=preprocess, trained={})
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for split in ("calibration", "validation"):
            for name in classes:
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(file, "PNG")
                archive.writestr(f"{split}/{name}/0.png", file.getvalue())
    return folder


def _nodes(path: Path) -> int:
    return len(onnx.load(path, load_external_data=False).graph.node)


def _results() -> dict[str, Any]:
    if RESULTS.exists():
        found: dict[str, Any] = json.loads(RESULTS.read_text())
        return found
    return {"format": "nas2edge.export_speed", "version": 1, "networks": {}, "speed": {}, "export_a0": {}}


def _save(results: dict[str, Any]) -> None:
    machine = read_machine()
    packages = {"torch": torch.__version__, "onnx": onnx.__version__}
    write_json(RESULTS, {**results, "machine": {"chip": machine.chip, "cores": machine.cores}, "packages": packages})


if __name__ == "__main__":
    main()
