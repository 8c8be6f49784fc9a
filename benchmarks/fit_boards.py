"""The boards that `fit_laws.py` fits: what they are, how the published lists call them, and their physical limits.

Peaks, clocks and memory bandwidths are those of vendors' data sheets; power modes are those of the Jetson Linux guide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas2edge.device import Device

MAX_SHARE_OF_PEAK = 0.6  # of pointwise and depthwise convolutions; Winograd's dense ones may come closer
CACHE_FACTOR = 4.0  # caches move at most this many times what the memory does
LEAST_LAUNCH_MS = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A board in one mode.

    Args:
        device: What the table says of it.
        called: Its names in the published lists.
        peak_gmac_s: Arithmetic peak in this precision, tensor cores included.
        vector_gmac_s: Peak without tensor cores: what depthwise convolutions can use.
        memory_gb_s: Bandwidth of the memory.
        source: Where the latencies come from.
        licence: Of these figures.
        processors: Streaming multiprocessors; 0 for a CPU.
        ghz: Their clock.
        fused_add: Whether the runtime fuses the addition of a shortcut.
        left_out: What the error says, in words.
    """

    device: Device
    called: tuple[str, ...]
    peak_gmac_s: float
    vector_gmac_s: float
    memory_gb_s: float
    source: str
    licence: str
    processors: int = 0
    ghz: float = 1.0
    fused_add: bool = True
    left_out: str = "networks, one at a time, on all boards"

    @property
    def name(self) -> str:
        return self.device.name

    @property
    def floor(self) -> npt.NDArray[np.float64]:
        """Least milliseconds per launch, GB and GMAC (pointwise, dense, depthwise)."""
        return np.array([
            LEAST_LAUNCH_MS,
            1e3 / (CACHE_FACTOR * self.memory_gb_s),
            1e3 / (MAX_SHARE_OF_PEAK * self.peak_gmac_s),
            1e3 / self.peak_gmac_s,
            1e3 / (MAX_SHARE_OF_PEAK * self.vector_gmac_s),
        ])  # fmt: skip

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """What coefficients of GPUs scale with: the clock, the bandwidth, the clock times the multiprocessors."""
        work = 1.0 / (self.processors * self.ghz)
        return np.array([1.0 / self.ghz, 1.0 / self.memory_gb_s, work, work, work])


_JETSON_SOURCE = (
    "law fitted to networks through TensorRT FP16: Nota-NetsPresso/netspresso-trainer, Deci-AI/super-gradients, "
    "fuzzylabs/edge-vision-power-estimation (Apache-2.0), NVIDIA-AI-IOT/torch2trt (MIT)"
)
_SCALED_SOURCE = "law of the Jetson Orin Nano, scaled by clock, multiprocessors and memory bandwidth; " + _JETSON_SOURCE
_UNSEEN = "networks on the Orin Nano and the AGX Orin, each by the other one's scaled law"
_NOT_STATED = "unknown: not stated in the source"


def _jetson(
    name: str,
    board: str,
    chip: str,
    called: tuple[str, ...],
    *,
    sms: int,
    ghz: float,
    peak: float,
    cuda: float,
    memory: float,
    jetpack: str,
    size: str = "",
    mode: str = "",
    clocks: str = _NOT_STATED,
    source: str = _JETSON_SOURCE,
    left_out: str = "networks, one at a time, on all boards",
) -> Board:
    return Board(
        device=Device(
            name=name,
            board=board,
            chip=chip,
            runtime="TensorRT",
            precision="fp16",
            os=jetpack,
            power_mode=mode,
            clocks=clocks,
            memory=size,
        ),
        called=called,
        peak_gmac_s=peak,
        vector_gmac_s=cuda,
        memory_gb_s=memory,
        source=source,
        licence="Apache-2.0 AND MIT",
        processors=sms,
        ghz=ghz,
        left_out=left_out,
    )


_ORIN = "Orin (1024 Ampere CUDA cores, 32 tensor cores)"
JETSONS = (
    _jetson("jetson-nano", "NVIDIA Jetson Nano", "Tegra X1 (128 Maxwell CUDA cores)", ("Jetson Nano",), sms=1,
            ghz=0.9216, peak=236, cuda=236, memory=25.6, jetpack="JetPack 4.6", size="4 GB LPDDR4"),
    _jetson("jetson-tx2", "NVIDIA Jetson TX2", "Tegra X2 (256 Pascal CUDA cores)", ("Jetson TX2",), sms=2, ghz=1.3,
            peak=665, cuda=665, memory=59.7, jetpack="JetPack 4.6", size="8 GB LPDDR4"),
    _jetson("jetson-xavier-nx", "NVIDIA Jetson Xavier NX", "Xavier (384 Volta CUDA cores, 48 tensor cores)",
            ("Jetson NX", "Jetson Xavier NX"), sms=6, ghz=1.1, peak=3400, cuda=845, memory=51.2, jetpack="JetPack 4.6"),
    _jetson("jetson-agx-xavier", "NVIDIA Jetson AGX Xavier", "Xavier (512 Volta CUDA cores, 64 tensor cores)",
            ("Jetson Xavier", "Jetson AGX Xavier"), sms=8, ghz=1.377, peak=5500, cuda=1410, memory=137,
            jetpack="JetPack 4.6"),
    _jetson("jetson-orin-nano-15w", "NVIDIA Jetson Orin Nano", _ORIN, ("Jetson Orin Nano",), sms=8, ghz=0.625,
            peak=5000, cuda=1280, memory=68, jetpack="JetPack 6.0", size="8 GB LPDDR5", mode="15W",
            clocks="GPU 0.625 GHz assumed: the highest of JetPack 6.0; not stated in the source"),
    _jetson("jetson-agx-orin", "NVIDIA Jetson AGX Orin", "Orin (2048 Ampere CUDA cores, 64 tensor cores)",
            ("Jetson AGX Orin",), sms=16, ghz=1.3, peak=21250, cuda=5300, memory=204.8, jetpack="JetPack 5.0.1"),
)  # fmt: skip
"""Boards with published networks."""

KERNELS_OF = "jetson-orin-nano-15w"
"""The board of which single kernels were published."""

ORINS = ("jetson-orin-nano-15w", "jetson-agx-orin")
"""Two boards of one generation."""

SCALED = tuple(
    (_jetson(name, board, _ORIN, (), sms=8, ghz=ghz, peak=peak, cuda=1280 * ghz / 0.625, memory=memory, jetpack="",
             size=size, mode=mode, clocks=f"GPU {ghz} GHz assumed from the power mode", source=_SCALED_SOURCE,
             left_out=_UNSEEN), "jetson-orin-nano-15w")
    for name, board, mode, size, ghz, peak, memory in (
        ("jetson-orin-nano-7w", "NVIDIA Jetson Orin Nano", "7W", "8 GB LPDDR5", 0.408, 3264, 68),
        ("jetson-orin-nano-25w", "NVIDIA Jetson Orin Nano", "25W (Super)", "8 GB LPDDR5", 0.918, 7344, 102),
        ("jetson-orin-nx", "NVIDIA Jetson Orin NX", "25W", "16 GB LPDDR5", 0.918, 7500, 102.4),
    )
)  # fmt: skip
"""Boards without any, and the neighbour whose law is scaled."""

EXTRA = {
    "jetson-orin-nano-15w": (("mobilenet_v3_large", 2.51),),
    "jetson-agx-xavier": (("mobilenet_v3_large", 1.50),),
    "jetson-agx-orin": (("mobilenet_v3_large", 0.92), ("resnet50", 1.14)),
}
"""Further latencies of netspresso-trainer's lists that network_latency.csv lacks."""

MODELS = {
    "MobileNetV3-large": "mobilenet_v3_large", "mobilenet_v3_large": "mobilenet_v3_large",
    "MobileNetV3-small": "mobilenet_v3_small", "mobilenet_v3_small": "mobilenet_v3_small",
    "mobilenet_v2": "mobilenet_v2", "mnasnet0_5": "mnasnet0_5", "mnasnet1_3": "mnasnet1_3",
    "ResNet18": "resnet18", "resnet18": "resnet18", "ResNet34": "resnet34", "resnet34": "resnet34",
    "ResNet50": "resnet50", "resnet50": "resnet50", "resnet101": "resnet101", "resnet152": "resnet152",
    "squeezenet1_1": "squeezenet1_1", "regnetY400": "regnety400",
}  # fmt: skip
"""Networks of network_latency.csv that are written out in published_networks.py."""

_NCNN_SOURCE = "law fitted to 13 networks of the benchmark of Tencent/ncnn at a4d2ea1 (BSD-3-Clause), 4 threads"


def _pi(number: int, chip: str, called: str, *, peak: float, memory: float, clocks: str) -> Board:
    device = Device(name=f"raspberry-pi-{number}", board=f"Raspberry Pi {number}", chip=chip, runtime="ncnn",
                    precision="fp16", threads=4, clocks=clocks)  # fmt: skip
    return Board(device=device, called=(called,), peak_gmac_s=peak, vector_gmac_s=peak, memory_gb_s=memory,
                 source=_NCNN_SOURCE, licence="BSD-3-Clause", fused_add=False)  # fmt: skip


CPUS = (
    # The Cortex-A72 stores half precision but computes in single: its peak is that of FP32.
    _pi(4, "BCM2711 (4 Cortex-A72)", "Raspberry Pi 4 Model B", peak=28.8, memory=12.8, clocks="1.8 GHz"),
    _pi(5, "BCM2712 (4 Cortex-A76)", "Raspberry Pi 5 Broadcom BCM2712, Cortex-A76", peak=153.6, memory=17.0,
        clocks="2.4 GHz"),
)  # fmt: skip

PIXEL = Board(
    device=Device(name="pixel-6", board="Google Pixel 6", chip="Tensor (Cortex-X1, big core)", runtime="TFLite",
                  precision="fp32", threads=1, clocks=_NOT_STATED),
    called=(),
    peak_gmac_s=45.0,
    vector_gmac_s=45.0,
    memory_gb_s=51.0,
    source="law fitted to 1800 blocks with hard swish of microsoft/nn-Meter, branch dev/hybrid-transformer (MIT); "
    "swish by the ratio of 1.48 that another phone of that project shows",
    licence="MIT",
    left_out="blocks, by map side",
)  # fmt: skip
