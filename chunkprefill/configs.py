"""Every named model shape and every named device, each figure with its source."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chunkprefill.model.config import Config
from chunkprefill.model.rope import Llama3Scaling
from chunkprefill.strict import shown
from chunkprefill.whole import article, check_fields, real_number, whole_number

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
    """The same of a cache; None, or vLLM's "auto", stands for the dtype of the activations."""
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


def table(name: str) -> Any:
    """The rows of a table among the package's data; each file says what its columns are."""
    return json.loads((Path(__file__).parent / "data" / name).read_text("utf-8"))["rows"]


def _device(row: dict[str, Any]) -> Device:
    """From a sheet's own units: TFLOP/s in 16 bits, fp8 and fp32; GB and GB/s; GB/s of the link, one way."""
    flops, fp8_flops, fp32_flops = (rate * 1e12 for rate in row["tflops"])
    memory, bandwidth = (figure * 1e9 for figure in row["memory"])
    more = {"fp8_flops": fp8_flops, "fp32_flops": fp32_flops, "link": row["link"] * 1e9}
    return Device(row["name"], flops, bandwidth, row["n_sms"], memory, row["source"], **more)


#: By short name, from `data/devices.json`. fp16 where a device has no bf16 (T4, V100). GB are read as 10^9
#: bytes: cards of NVIDIA have 2^30, and the 7% between stand for what a driver, its contexts and recorded
#: graphs hold.
DEVICES = {short: _device(row) for short, row in table("devices.json").items()}


# --- models ---------------------------------------------------------------------------------------------


def _shape(row: dict[str, Any]) -> Config:
    scaling = row.get("rope_scaling")
    return Config(**row | {"rope_scaling": scaling and Llama3Scaling(**scaling)})


#: Shapes by short name, from `data/models.json`, each as in the `config.json` that its owner publishes on the
#: hub.
MODELS = {short: _shape(row) for short, row in table("models.json").items()}
TINY, SMOLLM2_135M = MODELS["tiny"], MODELS["smollm2-135m"]
LLAMA3_8B, LLAMA2_70B = MODELS["llama-3-8b"], MODELS["llama-2-70b"]

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
    bare = _name("model", model, Config).rpartition("/")[2].removeprefix("meta-")
    for name in (bare,) if _OTHER.fullmatch(bare) else (bare, _TUNED.sub("", bare)):
        if name in MODELS:
            return MODELS[name]
    raise ValueError(f"no shape named {model!r} here; there are {', '.join(MODELS)}, or give a Config")


def find_device(device: Device | str) -> Device:
    """A device: itself, or the one of that name in DEVICES. Errors as of `find_model`."""
    if isinstance(device, Device):
        return device
    if (name := _name("device", device, Device)) in DEVICES:
        return DEVICES[name]
    raise ValueError(f"no device named {device!r} here; there are {', '.join(DEVICES)}, or give a Device")


def _name(what: str, thing: object, kind: type) -> str:
    """A name in small letters; TypeError for what is none."""
    if isinstance(thing, str):
        return thing.lower()
    got = f"{article(type(thing).__name__)} {type(thing).__name__}"
    raise TypeError(f"a {what} is a {kind.__name__} or a name, got {got}: {shown(thing)}")
