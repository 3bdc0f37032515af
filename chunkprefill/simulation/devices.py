"""What common accelerators can do at most, by their makers' own sheets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """An accelerator: what its data sheet promises, which no kernel reaches.

    flops:     FLOP/s of dense 16-bit matrix products with 32-bit sums (half of the "with sparsity" figure)
    bandwidth: bytes/s of its memory
    n_sms:     streaming multiprocessors (on AMD: compute units)
    memory:    bytes
    Raises ValueError unless all are above 0.
    """

    name: str
    flops: float
    bandwidth: float
    n_sms: int
    memory: float
    source: str

    def __post_init__(self) -> None:
        for what in ("flops", "bandwidth", "n_sms", "memory"):
            if not getattr(self, what) > 0:
                raise ValueError(
                    f"device {self.name!r}: {what} is {getattr(self, what)}, more than 0 is needed"
                )

    @property
    def saturation(self) -> float:
        """Tokens in a pass beyond which arithmetic, not reading 16-bit weights, is the limit: 2F / 2B.

        295 on an H100 by its sheet; 266 by what one was measured to reach (798 TFLOP/s, 3.0 TB/s).
        """
        return self.flops / self.bandwidth


def _device(name: str, tflops: float, gb_s: float, n_sms: int, gb: float, source: str) -> Device:
    return Device(name, tflops * 1e12, gb_s * 1e9, n_sms, gb * 1e9, source)


#: By short name. fp16 where a device has no bf16 (T4, V100).
DEVICES = {
    "v100": _device("V100 SXM2 32GB", 125, 900, 80, 32, "NVIDIA V100 data sheet, 2020"),
    "t4": _device("T4", 65, 320, 40, 16, "NVIDIA T4 data sheet, 2019"),
    "a10": _device("A10", 125, 600, 72, 24, "NVIDIA A10 data sheet, 2022"),
    "a100-40": _device("A100 SXM 40GB", 312, 1555, 108, 40, "NVIDIA A100 data sheet, 2021"),
    "a100": _device("A100 SXM 80GB", 312, 2039, 108, 80, "NVIDIA A100 data sheet, 2021"),
    "a6000": _device("RTX A6000", 154.8, 768, 84, 48, "NVIDIA GA102 whitepaper v2, 2021"),
    "l4": _device("L4", 121, 300, 58, 24, "NVIDIA L4 data sheet, 2023"),
    "l40s": _device("L40S", 362, 864, 142, 48, "NVIDIA L40S data sheet, 2023"),
    "rtx4090": _device(
        "GeForce RTX 4090", 165.2, 1008, 128, 24, "NVIDIA Ada GPU architecture whitepaper v2, 2023"
    ),
    "rtxpro6000": _device(
        "RTX PRO 6000 Blackwell Server", 503.8, 1597, 188, 96, "NVIDIA RTX Blackwell PRO whitepaper, 2025"
    ),
    "h100": _device("H100 SXM 80GB", 989.4, 3350, 132, 80, "NVIDIA H100 data sheet, 2023"),
    "h200": _device("H200 SXM", 989.4, 4800, 132, 141, "NVIDIA H200 data sheet, 2024"),
    "b200": _device("B200 SXM", 2250, 7700, 148, 180, "NVIDIA DGX B200 data sheet, 2024"),
    "mi300x": _device("MI300X", 1307.4, 5300, 304, 192, "AMD Instinct MI300X data sheet, 2023"),
}
