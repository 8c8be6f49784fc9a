"""Kernel laws of devices that nobody here could measure, and the *estimated* tables that follow from them.

The laws of other devices than this one are in their tables (`nas2edge.latency.registry.load_law`).

>>> table = estimated_table(ORIN_NANO_LAW, ORIN_NANO, unique_layers(space), date="2026-01-31")
>>> table.kind
'estimated'
"""

from __future__ import annotations

from collections.abc import Sequence

from nas2edge.costs import count_macs
from nas2edge.device import Device
from nas2edge.errors import TableError
from nas2edge.latency.kernels import KernelLaw
from nas2edge.latency.table import ESTIMATED, LatencyTable, TableRow
from nas2edge.plan import LayerSpec

MAX_SHARE_OF_PEAK = 0.6
# Fitted to 53 kernel times of MobileNetV2, TensorRT 10.1 FP16 at batch 1, github.com/fuzzylabs/
# edge-vision-power-estimation (Apache-2.0): mean error 5.7 % in sample, 6.3 % with each kernel left out in turn.
# The peak is half the FP16 tensor throughput of the 8 GB module at 625 MHz, counted in multiply-accumulates.
ORIN_NANO_LAW = KernelLaw(
    name="jetson-orin-nano",
    launch_us=12.2,
    bandwidth_gb_s=99.0,
    pointwise_gmac_s=1394.0,
    depthwise_gmac_s=128.0,
    value_bytes=2,
    peak_gmac_s=5000.0,
    fused_acts=("relu",),
    rel_sigma=0.25,
    source="fitted to 53 MobileNetV2 kernel times of fuzzylabs/edge-vision-power-estimation (Apache-2.0)",
)

ORIN_NANO = Device(
    name="jetson-orin-nano",
    board="NVIDIA Jetson Orin Nano",
    chip="Orin (1024 Ampere CUDA cores, 32 tensor cores)",
    runtime="TensorRT",
    runtime_version="10.1",
    precision="fp16",
    clocks="unknown: not stated in the source",
    memory="8 GB LPDDR5",
)


def estimated_table(
    law: KernelLaw, device: Device, layers: Sequence[LayerSpec], *, date: str, licence: str = "Apache-2.0"
) -> LatencyTable:
    """Returns a table whose rows, and whose answers for all other blocks, are the law's estimates.

    Args:
        law: The law; it is stored in the table.
        device: What the law holds for.
        layers: The blocks to write out as rows, once per key.
        date: ISO date.
        licence: SPDX identifier of the figures that the law was fitted to.

    Raises:
        TableError: A row would be faster than the device can compute.
    """
    rows = []
    for layer in {layer.key: layer for layer in layers}.values():
        ms = law.layer_ms(layer)
        _check_peak(law, layer, ms)
        rows.append(TableRow(layer=layer, p50=ms, status=ESTIMATED, rel_sigma=law.rel_sigma))
    return LatencyTable(
        device=device,
        kind=ESTIMATED,
        rows=tuple(rows),
        rel_sigma=law.rel_sigma,
        date=date,
        source=law.source,
        licence=licence,
        protocol={"tool": "nas2edge kernel law", "note": "estimated, never measured on the device"},
        law=law,
    )


def _check_peak(law: KernelLaw, layer: LayerSpec, ms: float) -> None:
    rate = count_macs(layer) / (ms * 1e6)
    if rate > MAX_SHARE_OF_PEAK * law.peak_gmac_s:
        raise TableError(
            f"row {layer.key!r}: {ms} ms mean {rate:.0f} GMAC/s, above {MAX_SHARE_OF_PEAK:.0%} of the peak of "
            f"{law.name}, {law.peak_gmac_s:.0f} GMAC/s; the law is wrong"
        )
