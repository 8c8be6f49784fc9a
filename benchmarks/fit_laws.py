"""Fits the laws of the estimated latency tables to published latencies, and says how far off they are.

    python benchmarks/fit_laws.py DATA [--write FOLDER] [--json FILE] [--date ISO]

DATA holds network_latency.csv, ncnn_benchmark.csv, ncnn_net_layers.csv, jetson_orin_mobilenetv2_trt_fp16_layers.csv and
nn_meter_pixel6_lut_ln_v3.json, extracted from public sources: Tencent/ncnn (BSD-3-Clause), Nota-NetsPresso/
netspresso-trainer and Deci-AI/super-gradients (Apache-2.0), fuzzylabs/edge-vision-power-estimation (Apache-2.0),
NVIDIA-AI-IOT/torch2trt (MIT), microsoft/nn-Meter (MIT).

The fit minimises relative errors over non-negative coefficients; each coefficient is drawn towards what all other
boards of its kind say (in units of clock, multiprocessors and memory bandwidth for Jetsons; in total time for CPUs),
and none can be better than the hardware. Errors are those of networks left out one at a time, on this board and on all
others. The one-sigma error of a law is the smallest that covers a left-out network with 68 % probability (a conformal
quantile), or the root mean square error of mobile networks if that is larger, and at least 15 %.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fit_boards import CPUS, EXTRA, JETSONS, KERNELS_OF, MODELS, ORINS, PIXEL, SCALED, Board
from published_networks import ncnn_networks, tensorrt_networks

from nas2edge.device import Device
from nas2edge.files import write_json
from nas2edge.latency.imported import read_foreign
from nas2edge.latency.kernels import DENSE, DEPTHWISE, POINTWISE, Kernel, KernelLaw, kernels
from nas2edge.latency.roofline import solve_nonnegative
from nas2edge.latency.table import ESTIMATED, LatencyTable
from nas2edge.latency.table_file import write_table
from nas2edge.plan import LayerSpec

Floats = npt.NDArray[np.float64]

JETSON_STRENGTH, CPU_STRENGTH = 0.1, 0.5  # of 0.1, 0.2, 0.3, 0.5 and 1: no board much worse than the others
LEAST_SIGMA = 0.15  # what two published lists of one board differ by, whatever a fit to a few networks says
KERNEL_WEIGHT = 0.3  # 53 kernels of one network weigh as much as five networks
SHARE = 0.68
LEAST_SHARE = 0.02
MOBILE = ("mobilenet", "mnasnet", "proxylessnasnet", "efficientnet")
SKIPPED = ("alexnet", "vgg16", "shufflenet")  # unlike anything that is searched: large classifiers, grouped pointwise
SWISH_OVER_HSWISH, SWISH_SIGMA = 1.48, 0.06  # a block with swish against hard swish: median, half of p16 to p84


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published latency; `other` if its source is not the board's main one, and includes the cost of a run."""

    network: str
    ms: float
    other: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A law's coefficients in milliseconds per unit, and the relative errors of what was left out, by name."""

    coefficients: Floats
    errors: tuple[tuple[str, float], ...]


def terms_of(launches: Sequence[Kernel], value_bytes: int) -> Floats:
    """Returns launches, GB moved, and GMACs: pointwise, dense, depthwise."""
    macs = {kind: sum(kernel.macs for kernel in launches if kernel.kind == kind) / 1e9 for kind in (DENSE, DEPTHWISE)}
    pointwise = sum(kernel.macs for kernel in launches) / 1e9 - sum(macs.values())
    moved = sum(kernel.values for kernel in launches) * value_bytes / 1e9
    return np.array([len(launches), moved, pointwise, macs[DENSE], macs[DEPTHWISE]], dtype=np.float64)


def solve(
    terms: Floats,
    ms: Floats,
    *,
    floor: Floats,
    prior: Floats | None = None,
    strength: float = 0.0,
    other: Floats | None = None,
    weights: Floats | None = None,
) -> Floats:
    """Returns coefficients, at least `floor`; with `other`, a constant of its own for the rows that it marks."""
    n = terms.shape[1]
    importance = np.ones(len(ms)) if weights is None else weights
    matrix = terms * (importance / ms)[:, None]
    target = importance * (1.0 - terms @ floor / ms)
    if prior is not None:
        expected = np.maximum(prior, floor)
        matrix = np.vstack([matrix, np.diag(strength / expected)])
        target = np.concatenate([target, strength * (1.0 - floor / expected)])
    if other is not None and other.any():
        column = np.zeros(len(target))
        column[: len(ms)] = other / ms
        matrix = np.column_stack([matrix, column])
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-12)
    solved: Floats = solve_nonnegative(matrix / scale, target) / scale
    return np.concatenate([solved[:n] + floor, solved[n:]])


def _none_vanishes(law: Floats, terms: Floats, ms: Floats) -> Floats:
    """A term that vanishes in a prior would bind others to zero; each keeps a share of the average network."""
    return np.maximum(law, LEAST_SHARE / (terms / ms[:, None]).mean(axis=0))


def sigma_of(errors: Sequence[float]) -> float:
    """Returns the error that a further network stays below with 68 % probability."""
    ranked = sorted(map(abs, errors))
    return ranked[min(len(ranked), math.ceil(SHARE * (len(ranked) + 1))) - 1]


def mobile_rms(fit: Fit) -> float:
    """Returns the root mean square error of the networks that are built of the blocks that are searched here."""
    mobile = [error for name, error in fit.errors if name.startswith(MOBILE)]
    return float(np.sqrt(np.mean(np.square(mobile))))


def fit_jetsons(data: Path) -> dict[str, Fit]:
    """Fits every Jetson of which networks were published."""
    networks = tensorrt_networks(data / "ncnn_net_layers.csv")
    published = {board.name: published_on(board, data) for board in JETSONS}
    terms = {name: terms_of(launches, 2) for name, launches in networks.items()}

    kernel_terms, kernel_ms = orin_kernels(data)

    def system(board: Board, without: str) -> tuple[Floats, Floats, Floats, Floats]:
        kept = [item for item in published[board.name] if item.network != without]
        matrix, ms = np.stack([terms[item.network] for item in kept]), np.array([item.ms for item in kept])
        other, weights = np.array([float(item.other) for item in kept]), np.ones(len(kept))
        if board.name == KERNELS_OF and without != "mobilenet_v2":  # the network of these kernels
            matrix, ms = np.vstack([matrix, kernel_terms]), np.concatenate([ms, kernel_ms])
            other = np.concatenate([other, np.zeros(len(kernel_ms))])
            weights = np.concatenate([weights, np.full(len(kernel_ms), KERNEL_WEIGHT)])
        return matrix, ms, other, weights

    def prior(board: Board, without: str, unseen: Board | None = None) -> Floats:
        others = [neighbour for neighbour in JETSONS if neighbour not in (board, unseen)]
        systems = [system(neighbour, without) for neighbour in others]
        matrix = np.vstack([part[0] * neighbour.scale for part, neighbour in zip(systems, others, strict=True)])
        ms, weights = (np.concatenate([part[i] for part in systems]) for i in (1, 3))
        # A board's other source has a constant of its own.
        marks = np.zeros((len(ms), len(others)))
        marks[np.arange(len(ms)), np.repeat(np.arange(len(others)), [len(part[1]) for part in systems])] = (
            np.concatenate([part[2] for part in systems])
        )
        joint = np.hstack([matrix, marks[:, marks.any(axis=0)]])
        solved = solve(joint, ms, floor=np.zeros(joint.shape[1]), weights=weights)[:5]
        return _none_vanishes(solved, matrix, ms) * board.scale

    def fit(board: Board, without: str = "", unseen: Board | None = None) -> Floats:
        matrix, ms, other, weights = system(board, without)
        return solve(matrix, ms, floor=board.floor, prior=prior(board, without, unseen), strength=JETSON_STRENGTH,
                     other=other, weights=weights)  # fmt: skip

    fits = {}
    for board in JETSONS:
        errors = []
        for name in dict.fromkeys(item.network for item in published[board.name]):
            solved = fit(board, name)
            constant = solved[5] if len(solved) > 5 else 0.0
            errors += [(name, float((terms[name] @ solved[:5] + constant * item.other) / item.ms - 1.0))
                       for item in published[board.name] if item.network == name]  # fmt: skip
        fits[board.name] = Fit(coefficients=fit(board)[:5], errors=tuple(errors))
    by_name = {board.name: board for board in JETSONS}
    # How far scaling goes wrong: each Orin from the other's law, in whose fit it played no part.
    orins = [by_name[name] for name in ORINS]
    errors = []
    for known, unseen in (orins, orins[::-1]):
        scaled = fit(known, unseen=unseen)[:5] / known.scale * unseen.scale
        errors += [(f"{item.network} on {unseen.name}", float(terms[item.network] @ scaled / item.ms - 1.0))
                   for item in published[unseen.name]]  # fmt: skip
    for board, neighbour in SCALED:
        scaled = fits[neighbour].coefficients / by_name[neighbour].scale * board.scale
        fits[board.name] = Fit(coefficients=np.maximum(scaled, board.floor), errors=tuple(errors))
    return fits


def orin_kernels(data: Path) -> tuple[Floats, Floats]:
    """Returns terms and milliseconds of 53 kernels of MobileNetV2 on an Orin Nano, the faster of two sessions."""
    terms, ms = [], []
    with (data / "jetson_orin_mobilenetv2_trt_fp16_layers.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            in_chs, hw_in, out_chs, hw_out, k = (int(row[name]) for name in ("cin", "h_in", "cout", "h_out", "kernel"))
            depthwise = row["role"] == "dw"
            weights = k * k * out_chs * (1 if depthwise else in_chs)
            kernel = Kernel(
                name=row["role"],
                kind=DEPTHWISE if depthwise else DENSE if k > 1 else POINTWISE,
                macs=weights * hw_out**2,
                read=in_chs * hw_in**2,
                written=out_chs * hw_out**2,
                weights=weights,
            )
            terms.append(terms_of([kernel], 2))
            ms.append(min(float(row["ms_session_a"]), float(row["ms_session_b"])))
    return np.stack(terms), np.array(ms)


def published_on(board: Board, data: Path) -> list[Published]:
    """Returns the latencies published of a Jetson through TensorRT, FP16, batch 1, 224 pixels."""
    found = [Published(network=network, ms=ms) for network, ms in EXTRA.get(board.name, ())]
    with (data / "network_latency.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            runtime = row["runtime"].startswith("TensorRT") or row["runtime"] == "torch2trt"
            if row["device"] in board.called and runtime and row["model"] in MODELS and "with IO" not in row["note"]:
                found.append(Published(network=MODELS[row["model"]], ms=float(row["latency_ms"]),
                                       other="netspresso" not in row["source"]))  # fmt: skip
    return found


def fit_cpus(data: Path) -> dict[str, Fit]:
    """Fits the CPU boards to ncnn's benchmark; all boards of as many threads make the prior."""
    terms = {name: terms_of(launches, 2) for name, launches in ncnn_networks(data / "ncnn_net_layers.csv").items()
             if name not in SKIPPED}  # fmt: skip
    runs: dict[tuple[str, int], dict[str, float]] = {}
    with (data / "ncnn_benchmark.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["runtime"] == "ncnn-cpu" and row["model"] in terms:
                key = (row["device"], int(row["num_threads"]))
                runs.setdefault(key, {}).setdefault(row["model"], float(row["min_ms"]))

    def system(key: tuple[str, int], without: str) -> tuple[Floats, Floats]:
        kept = [name for name in runs[key] if name != without]
        return np.stack([terms[name] for name in kept]), np.array([runs[key][name] for name in kept])

    def prior(board: Board, key: tuple[str, int], without: str) -> Floats:
        # All others, each scaled to one speed; the scales and the law take turns.
        systems = [system(other, without) for other in runs
                   if other[1] == key[1] and other[0] != key[0] and len(runs[other]) > 8]  # fmt: skip
        matrix = np.vstack([terms for terms, _ in systems])
        law = solve(matrix, np.concatenate([ms for _, ms in systems]), floor=np.zeros(5))
        for _ in range(5):
            scaled = [ms / np.median(ms / (terms @ law)) for terms, ms in systems]
            law = solve(matrix, np.concatenate(scaled), floor=np.zeros(5))
        law = _none_vanishes(law, matrix, np.concatenate(scaled))
        mine, ms = system(key, without)
        return law * float(np.median(ms / (mine @ law)))

    fits = {}
    for board in CPUS:
        key = next(key for key in runs if board.called[0] in key[0] and key[1] == board.device.threads)
        errors = []
        for name in runs[key]:
            solved = solve(*system(key, name), floor=board.floor, prior=prior(board, key, name), strength=CPU_STRENGTH)
            errors.append((name, float(terms[name] @ solved / runs[key][name] - 1.0)))
        solved = solve(*system(key, ""), floor=board.floor, prior=prior(board, key, ""), strength=CPU_STRENGTH)
        fits[board.name] = Fit(coefficients=solved, errors=tuple(errors))
    return fits


def fit_pixel(data: Path) -> tuple[Fit, float, float]:
    """Fits blocks instead of networks: those of each map side left out, and the widest blocks left out.

    Returns:
        The fit; its error on the blocks that are wider than those fitted; the rate of swish in 1e9 values a second.
    """
    read = read_foreign([data / "nn_meter_pixel6_lut_ln_v3.json"], format="nn-meter")
    layers, ms = [row.layer for row in read.rows], np.array([row.p50 for row in read.rows])
    terms = np.stack([terms_of(kernels(layer, fused_acts=("relu",)), 4) for layer in layers])
    sides, wide = np.array([layer.hw_in for layer in layers]), np.array([layer.in_chs >= 32 for layer in layers])
    errors = np.zeros(len(ms))
    for side in np.unique(sides):
        out = sides == side
        errors[out] = terms[out] @ solve(terms[~out], ms[~out], floor=PIXEL.floor) / ms[out] - 1.0
    beyond = terms[wide] @ solve(terms[~wide], ms[~wide], floor=PIXEL.floor) / ms[wide] - 1.0
    coefficients = solve(terms, ms, floor=PIXEL.floor)
    fit = Fit(coefficients=coefficients,
              errors=tuple((layer.key, float(error)) for layer, error in zip(layers, errors, strict=True)))  # fmt: skip
    return fit, sigma_of(beyond.tolist()), _swish_rate(layers, terms @ coefficients)


def _swish_rate(layers: Sequence[LayerSpec], hswish_ms: Floats) -> float:
    values = np.array([
        sum(op.out_chs * op.hw_out**2 for op in layer.ops if op.act == layer.act) / 1e9 for layer in layers
    ])  # fmt: skip
    blocks = np.array([layer.op == "mbconv" for layer in layers])
    slow, fast = 1e-3, 1e3  # bisection: the median ratio falls as the rate grows
    for _ in range(60):
        rate = math.sqrt(slow * fast)
        ratio = float(np.median(1.0 + (1e3 * values / rate / hswish_ms)[blocks]))
        slow, fast = (rate, fast) if ratio > SWISH_OVER_HSWISH else (slow, rate)
    return rate


def law_of(board: Board, fit: Fit, *, rel_sigma: float, act_gvalue_s: Mapping[str, float] | None = None) -> KernelLaw:
    """Returns the law of a fit."""
    launch, moved, pointwise, dense, depthwise = fit.coefficients.tolist()
    return KernelLaw(
        name=board.name,
        launch_us=_rounded(1e3 * launch),
        bandwidth_gb_s=_rounded(1e3 / moved),
        pointwise_gmac_s=_rounded(1e3 / pointwise),
        dense_gmac_s=_rounded(1e3 / dense),
        depthwise_gmac_s=_rounded(1e3 / depthwise),
        value_bytes=board.device.value_bytes,
        peak_gmac_s=board.peak_gmac_s,
        fused_acts=("relu",),
        fused_add=board.fused_add,
        rel_sigma=_rounded(rel_sigma, 2),
        source=board.source,
        act_gvalue_s={act: _rounded(rate) for act, rate in (act_gvalue_s or {}).items()},
    )


def _rounded(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def covered(fits: Mapping[str, Fit]) -> float:
    """Returns the share of left-out networks inside one sigma, where sigma comes from the other networks alone."""
    inside = []
    for fit in fits.values():
        errors = [error for _, error in fit.errors]
        inside += [abs(error) <= sigma_of(errors[:i] + errors[i + 1 :]) for i, error in enumerate(errors)]
    return float(np.mean(inside))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", type=Path, help="Folder to write <device>.json into.")
    parser.add_argument("--json", type=Path, help="Write the errors here.")
    parser.add_argument("--date", default=datetime.date.today().isoformat())
    args = parser.parse_args()
    jetsons, cpus = fit_jetsons(args.data), fit_cpus(args.data)
    pixel, beyond, swish = fit_pixel(args.data)
    boards = {board.name: board for board in (*JETSONS, *(board for board, _ in SCALED), *CPUS, PIXEL)}
    results: dict[str, Any] = {}
    print(f"{'device':22s} left out  median |error|  sigma   launch  GB/s  pointwise dense depthwise GMAC/s")
    for name, fit in {**jetsons, **cpus, PIXEL.name: pixel}.items():
        errors = [error for _, error in fit.errors]
        sigma = math.hypot(beyond, SWISH_SIGMA) if name == PIXEL.name else max(sigma_of(errors), mobile_rms(fit))
        sigma = max(LEAST_SIGMA, sigma)
        law = law_of(boards[name], fit, rel_sigma=sigma, act_gvalue_s={"swish": swish} if name == PIXEL.name else None)
        what = {
            "left_out": boards[name].left_out,
            "count": len(errors),
            "median_error": _rounded(float(np.median(np.abs(errors))), 2),
            "bias": _rounded(float(np.median(errors)), 2),
            "largest_error": _rounded(max(map(abs, errors)), 2),
        }
        print(
            f"{name:22s} {len(errors):8d}  {what['median_error']:14.1%}  {sigma:5.1%}  {law.launch_us:6.3g}us "
            f"{law.bandwidth_gb_s:6.4g} {law.pointwise_gmac_s:9.4g} {law.dense_gmac_s:6.4g} {law.depthwise_gmac_s:6.4g}"
        )
        results[name] = what | {"rel_sigma": law.rel_sigma}
        if name != PIXEL.name:
            results[name]["errors"] = [[network, _rounded(error, 2)] for network, error in fit.errors]
        if args.write:
            write_table(args.write / f"{name}.json", _table(boards[name], law, what, args.date))
    own = {name: fit for name, fit in jetsons.items() if name in {board.name for board in JETSONS}}
    for kind, fits in (("Jetsons", own), ("CPUs", cpus)):
        errors = [abs(error) for fit in fits.values() for _, error in fit.errors]
        results[kind] = {"median_error": _rounded(float(np.median(errors)), 2), "covered": _rounded(covered(fits), 2)}
        print(f"{kind}: median {np.median(errors):.1%}, {covered(fits):.0%} inside one sigma of the other networks")
    print(f"pixel-6: {beyond:.1%} (68 %) on blocks wider than those fitted; swish at {swish:.3g} G values/s")
    if args.json:
        write_json(args.json, results)


def _table(board: Board, law: KernelLaw, errors: Mapping[str, Any], date: str) -> LatencyTable:
    device: Device = board.device
    protocol = {
        "tool": "benchmarks/fit_laws.py",
        "note": "estimated, never measured on the device",
        "fit": dict(errors),
    }
    return LatencyTable(device=device, kind=ESTIMATED, rows=(), rel_sigma=law.rel_sigma, date=date, source=law.source,
                        licence=board.licence, protocol=protocol, law=law)  # fmt: skip


if __name__ == "__main__":
    main()
