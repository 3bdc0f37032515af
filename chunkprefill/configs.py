"""Every named model shape and every named device, each figure with its source."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from chunkprefill.model.config import Config
from chunkprefill.model.rope import Llama3Scaling
from chunkprefill.whole import check_fields, real_number, whole_number

#: Bytes of a number as it is stored. int4 carries a 16-bit scale for every 128 numbers (AWQ and GPTQ).
DTYPES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 2 / 128}
#: What else they are called, by torch and by checkpoints.
ALIASES = {
    "float32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
}


def dtype_name(dtype: object) -> str:
    """The key of DTYPES that `dtype` means: a name, or a torch dtype. ValueError for any other."""
    name = str(dtype).removeprefix("torch.").lower()
    name = ALIASES.get(name, name)
    if name not in DTYPES:
        raise ValueError(f"no dtype {dtype!r}; there are {', '.join(DTYPES)}")
    return name


def cache_dtype(dtype: object) -> str | None:
    """The same of a cache; None, and "auto" as vLLM calls it, for what the activations have."""
    return None if dtype is None or dtype == "auto" else dtype_name(dtype)


# --- devices --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Device:
    """An accelerator: what its data sheet promises, which no kernel reaches.

    flops:      FLOP/s of dense 16-bit matrix products with 32-bit sums (half of the "with sparsity" figure)
    bandwidth:  bytes/s of its memory
    n_sms:      streaming multiprocessors (on AMD: compute units)
    memory:     bytes
    fp8_flops:  FLOP/s of dense fp8 matrix products; 0: it has none, and fp8 weights are widened
    fp32_flops: FLOP/s outside the tensor cores; 0: not known
    link:       bytes/s, one way, to the other devices of its server; 0: not known
    Raises ValueError unless the first four are finite and above 0 and the others finite and at least 0.
    """

    name: str
    flops: float
    bandwidth: float
    n_sms: int
    memory: float
    source: str
    fp8_flops: float = 0.0
    fp32_flops: float = 0.0
    link: float = 0.0

    def __post_init__(self) -> None:
        of = f"device {self.name!r}: "
        check_fields(self, real_number, ("flops", "bandwidth", "memory"), of=of, above=True)
        check_fields(self, whole_number, ("n_sms",), of=of, least=1)
        check_fields(self, real_number, ("fp8_flops", "fp32_flops", "link"), of=of)

    @property
    def saturation(self) -> float:
        """Tokens in a pass beyond which arithmetic, not reading 16-bit weights, is the limit: 2F / 2B.

        295 on an H100 by its sheet; 266 by what one was measured to reach (798 TFLOP/s, 3.0 TB/s).
        """
        return self.flops / self.bandwidth

    def rate(self, dtype: str) -> float:
        """FLOP/s of products with weights of `dtype`, a key of DTYPES.

        int8 and int4 weights, and fp8 where the device has no fp8 products, are widened to 16 bits on their
        way into the product: they save reading, not arithmetic. ValueError where the rate is not known.
        """
        if dtype == "fp32":
            if not self.fp32_flops:
                raise ValueError(f"device {self.name!r} has no fp32_flops: products in fp32 have no price")
            return self.fp32_flops
        return self.fp8_flops if dtype == "fp8" and self.fp8_flops else self.flops


def _device(
    name: str,
    rates: tuple[float, float, float],
    memory: tuple[float, float],
    n_sms: int,
    link: float,
    source: str,
) -> Device:
    """From a sheet's own units: TFLOP/s in 16 bits, fp8 and fp32; GB and GB/s; GB/s of the link, one way."""
    sixteen, eight, single = (rate * 1e12 for rate in rates)
    size, bandwidth = (figure * 1e9 for figure in memory)
    return Device(name, sixteen, bandwidth, n_sms, size, source, eight, single, link * 1e9)


#: By short name. fp16 where a device has no bf16 (T4, V100). GB are read as 10^9 bytes: cards of NVIDIA have
#: 2^30, and the 7% between stand for what a driver, its contexts and recorded graphs hold.
DEVICES = {
    "v100": _device("V100 SXM2 32GB", (125, 0, 15.7), (32, 900), 80, 150, "NVIDIA V100 data sheet, 2020"),
    "t4": _device("T4", (65, 0, 8.1), (16, 320), 40, 15.75, "NVIDIA T4 data sheet, 2019"),
    "a10": _device("A10", (125, 0, 31.2), (24, 600), 72, 31.5, "NVIDIA A10 data sheet, 2022"),
    "a100-40": _device("A100 SXM 40GB", (312, 0, 19.5), (40, 1555), 108, 300, "NVIDIA A100 data sheet, 2021"),
    "a100": _device("A100 SXM 80GB", (312, 0, 19.5), (80, 2039), 108, 300, "NVIDIA A100 data sheet, 2021"),
    "a6000": _device("RTX A6000", (154.8, 0, 38.7), (48, 768), 84, 31.5, "NVIDIA GA102 whitepaper v2, 2021"),
    "l4": _device("L4", (121, 242.5, 30.3), (24, 300), 58, 31.5, "NVIDIA L4 data sheet, 2023"),
    "l40s": _device("L40S", (362, 733, 91.6), (48, 864), 142, 31.5, "NVIDIA L40S data sheet, 2023"),
    "rtx4090": _device(
        "GeForce RTX 4090",
        (165.2, 330.3, 82.6),
        (24, 1008),
        128,
        31.5,
        "NVIDIA Ada GPU architecture whitepaper v2, 2023",
    ),
    "rtx5090": _device(
        "GeForce RTX 5090",
        (209.5, 419, 104.8),
        (32, 1792),
        170,
        63,
        "NVIDIA RTX Blackwell GPU architecture whitepaper, 2025",
    ),
    "rtxpro6000": _device(
        "RTX PRO 6000 Blackwell Server",
        (503.8, 1007.6, 120),
        (96, 1597),
        188,
        63,
        "NVIDIA RTX Blackwell PRO whitepaper, 2025",
    ),
    "gb10": _device(
        "GB10 (DGX Spark)",
        (125, 250, 31),
        (128, 273),
        48,
        25,
        "NVIDIA DGX Spark data sheet, 2025: 1 PFLOP/s of sparse fp4, and dense 16-bit is an eighth; fp32: "
        "NVIDIA at Hot Chips 2025; link: one 200 Gb/s port",
    ),
    "h100": _device(
        "H100 SXM 80GB", (989.4, 1978.9, 66.9), (80, 3350), 132, 450, "NVIDIA H100 data sheet, 2023"
    ),
    "h200": _device("H200 SXM", (989.4, 1978.9, 66.9), (141, 4800), 132, 450, "NVIDIA H200 data sheet, 2024"),
    "h20": _device("H20 SXM 96GB", (148, 296, 44), (96, 4000), 78, 450, "NVIDIA H20 data sheet, 2023"),
    "b200": _device("B200 SXM", (2250, 4500, 75), (180, 7700), 148, 900, "NVIDIA DGX B200 data sheet, 2024"),
    "mi300x": _device(
        "MI300X", (1307.4, 2614.9, 163.4), (192, 5300), 304, 448, "AMD Instinct MI300X data sheet, 2023"
    ),
}


# --- models ---------------------------------------------------------------------------------------------


def _llama3(scaling: Llama3Scaling | None = None, **shape: Any) -> Config:
    positions = 8192 if scaling is None else 131_072
    common: dict[str, Any] = {"vocab_size": 128_256, "rope_theta": 500_000.0, "rope_scaling": scaling}
    return Config(**(common | {"max_positions": positions} | shape))


def _qwen2(**shape: Any) -> Config:
    common: dict[str, Any] = {"rope_theta": 1e6, "norm_eps": 1e-6, "qkv_bias": True, "family": "qwen2"}
    return Config(**(common | {"head_dim": 128, "max_positions": 32_768} | shape))


def _qwen3(**shape: Any) -> Config:
    common: dict[str, Any] = {"rope_theta": 1e6, "norm_eps": 1e-6, "qk_norm": True, "family": "qwen3"}
    return Config(**(common | {"head_dim": 128, "vocab_size": 151_936, "max_positions": 40_960} | shape))


def _mistral(**shape: Any) -> Config:
    common: dict[str, Any] = {"rope_theta": 1e6, "family": "mistral", "max_positions": 32_768}
    return Config(**(common | {"n_kv_heads": 8, "head_dim": 128} | shape))


_LLAMA31 = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_positions=8192)
_LLAMA32 = Llama3Scaling(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_positions=8192)

TINY = Config(n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, vocab_size=256, d_ff=128)
SMOLLM2_135M = Config(
    n_layers=30,
    n_heads=9,
    n_kv_heads=3,
    head_dim=64,
    vocab_size=49_152,
    d_ff=1536,
    rope_theta=100_000.0,
    tied=True,
)
_8B: dict[str, Any] = {"n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "d_ff": 14_336}
_70B: dict[str, Any] = {"n_layers": 80, "n_heads": 64, "n_kv_heads": 8, "head_dim": 128, "d_ff": 28_672}
LLAMA3_8B, LLAMA3_70B = _llama3(**_8B), _llama3(**_70B)
_LLAMA2: dict[str, Any] = {"vocab_size": 32_000, "max_positions": 4096}
LLAMA2_7B = Config(n_layers=32, n_heads=32, n_kv_heads=32, head_dim=128, d_ff=11_008, **_LLAMA2)
LLAMA2_70B = Config(**_70B, **_LLAMA2)

#: Shapes by short name, each as in the `config.json` that its owner publishes on the hub.
MODELS: dict[str, Config] = {
    "tiny": TINY,
    "smollm2-135m": SMOLLM2_135M,
    "smollm2-360m": Config(
        n_layers=32,
        n_heads=15,
        n_kv_heads=5,
        head_dim=64,
        vocab_size=49_152,
        d_ff=2560,
        rope_theta=100_000.0,
        tied=True,
    ),
    "smollm2-1.7b": Config(
        n_layers=24,
        n_heads=32,
        n_kv_heads=32,
        head_dim=64,
        vocab_size=49_152,
        d_ff=8192,
        rope_theta=130_000.0,
        tied=True,
    ),
    "llama-2-7b": LLAMA2_7B,
    "llama-2-13b": Config(n_layers=40, n_heads=40, n_kv_heads=40, head_dim=128, d_ff=13_824, **_LLAMA2),
    "llama-2-70b": LLAMA2_70B,
    "llama-3-8b": LLAMA3_8B,
    "llama-3-70b": LLAMA3_70B,
    "llama-3.1-8b": _llama3(_LLAMA31, **_8B),
    "llama-3.1-70b": _llama3(_LLAMA31, **_70B),
    "llama-3.3-70b": _llama3(_LLAMA31, **_70B),
    "llama-3.1-405b": _llama3(_LLAMA31, n_layers=126, n_heads=128, n_kv_heads=8, head_dim=128, d_ff=53_248),
    "llama-3.2-1b": _llama3(
        _LLAMA32, n_layers=16, n_heads=32, n_kv_heads=8, head_dim=64, d_ff=8192, tied=True
    ),
    "llama-3.2-3b": _llama3(
        _LLAMA32, n_layers=28, n_heads=24, n_kv_heads=8, head_dim=128, d_ff=8192, tied=True
    ),
    "qwen2.5-0.5b": _qwen2(
        n_layers=24, n_heads=14, n_kv_heads=2, head_dim=64, d_ff=4864, vocab_size=151_936, tied=True
    ),
    "qwen2.5-1.5b": _qwen2(n_layers=28, n_heads=12, n_kv_heads=2, d_ff=8960, vocab_size=151_936, tied=True),
    "qwen2.5-7b": _qwen2(n_layers=28, n_heads=28, n_kv_heads=4, d_ff=18_944, vocab_size=152_064),
    "qwen2.5-14b": _qwen2(n_layers=48, n_heads=40, n_kv_heads=8, d_ff=13_824, vocab_size=152_064),
    "qwen2.5-32b": _qwen2(n_layers=64, n_heads=40, n_kv_heads=8, d_ff=27_648, vocab_size=152_064),
    "qwen2.5-72b": _qwen2(n_layers=80, n_heads=64, n_kv_heads=8, d_ff=29_568, vocab_size=152_064),
    "qwen3-0.6b": _qwen3(n_layers=28, n_heads=16, n_kv_heads=8, d_model=1024, d_ff=3072, tied=True),
    "qwen3-1.7b": _qwen3(n_layers=28, n_heads=16, n_kv_heads=8, d_ff=6144, tied=True),
    "qwen3-4b": _qwen3(n_layers=36, n_heads=32, n_kv_heads=8, d_model=2560, d_ff=9728, tied=True),
    "qwen3-8b": _qwen3(n_layers=36, n_heads=32, n_kv_heads=8, d_ff=12_288),
    "qwen3-14b": _qwen3(n_layers=40, n_heads=40, n_kv_heads=8, d_ff=17_408),
    "qwen3-32b": _qwen3(n_layers=64, n_heads=64, n_kv_heads=8, d_model=5120, d_ff=25_600),
    "qwen3-30b-a3b": _qwen3(
        n_layers=48, n_heads=32, n_kv_heads=4, d_model=2048, d_ff=768, n_experts=128, n_active=8
    ),
    "qwen3-235b-a22b": _qwen3(
        n_layers=94, n_heads=64, n_kv_heads=4, d_model=4096, d_ff=1536, n_experts=128, n_active=8
    ),
    "mistral-7b": _mistral(n_layers=32, n_heads=32, d_ff=14_336, vocab_size=32_768),
    "mistral-small-24b": _mistral(
        n_layers=40, n_heads=32, d_model=5120, d_ff=32_768, vocab_size=131_072, rope_theta=1e8
    ),
    "mixtral-8x7b": _mistral(
        n_layers=32, n_heads=32, d_ff=14_336, vocab_size=32_000, n_experts=8, n_active=2
    ),
    "mixtral-8x22b": _mistral(
        n_layers=56,
        n_heads=48,
        d_ff=16_384,
        vocab_size=32_768,
        n_experts=8,
        n_active=2,
        max_positions=65_536,
    ),
}

# What a name on the hub adds to a shape's own: weights tuned otherwise, in the same shape.
_TUNED = re.compile(r"(-(instruct|chat|base|hf|it|thinking|v[\d.]+|\d{4}))+$")
# Of the names that this leaves alike, those of another shape: a vocabulary of 32,000, and in v0.1 a window.
_OTHER = re.compile(r"mistral-7b(-\w+)*-v0\.[12]")


def find_model(model: Config | str) -> Config:
    """A shape: itself, or the one of that name in MODELS; "meta-llama/Llama-3.1-8B-Instruct" is one too.

    Raises TypeError for what is neither, and ValueError, listing the names, for an unknown one.
    """
    if isinstance(model, Config):
        return model
    if not isinstance(model, str):
        raise TypeError(f"a model is a Config or a name, got {_what(model)}")
    bare = model.lower().rpartition("/")[2].removeprefix("meta-")
    for name in (bare,) if _OTHER.fullmatch(bare) else (bare, _TUNED.sub("", bare)):
        if name in MODELS:
            return MODELS[name]
    raise ValueError(f"no shape named {model!r} here; there are {', '.join(MODELS)}, or give a Config")


def find_device(device: Device | str) -> Device:
    """A device: itself, or the one of that name in DEVICES. Errors as of `find_model`."""
    if isinstance(device, Device):
        return device
    if not isinstance(device, str):
        raise TypeError(f"a device is a Device or a name, got {_what(device)}")
    if device.lower() in DEVICES:
        return DEVICES[device.lower()]
    raise ValueError(f"no device named {device!r} here; there are {', '.join(DEVICES)}, or give a Device")


def _what(thing: object) -> str:
    """A wrong argument in a few words."""
    text = repr(thing)
    return f"a {type(thing).__name__}: {text if len(text) <= 60 else text[:57] + '...'}"
