"""How a model lies on devices: number formats, tensor parallelism, and the bytes that each device holds."""

from __future__ import annotations

from dataclasses import dataclass

from chunkprefill.configs import DTYPES, Device, cache_dtype, dtype_name
from chunkprefill.model.config import Config
from chunkprefill.whole import check_fields, whole_number

#: Adding up over a link: s that no size removes, share of the link's bytes/s that is reached.
#: NVLink: nccl-tests on H100s ("Where tensor-parallel inference hits the NVLink wall", W. Hacking, 2026: 366
#: of 478 GB/s; 9 us for the least message). PCIe: two RTX PRO 6000 under vLLM 0.19, which cannot reach each
#: other's memory (155 us for 1.31 MB, 1.4 ms for 21 MB).
LINKS = {"nvlink": (9e-6, 0.77), "pcie": (72e-6, 0.25)}
NVLINK = 100e9  # bytes/s, one way: every NVLink is faster and every PCIe slower


@dataclass(frozen=True)
class Layout:
    """What weights and cache are stored in, and how many devices share each layer.

    dtype: of the layers' matrices; embedding, head and norms stay 16-bit below that, as in fp8, AWQ and GPTQ
    checkpoints. kv_dtype: of the cache; None or "auto": as activations are (16-bit, or fp32 with fp32 weights).
    tp: devices, each with its share of every layer's heads and MLP columns.
    Raises ValueError for an unknown dtype or a tp below 1.
    """

    dtype: str = "bf16"
    kv_dtype: str | None = None
    tp: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        object.__setattr__(self, "kv_dtype", cache_dtype(self.kv_dtype))
        check_fields(self, whole_number, ("tp",), least=1)

    @property
    def cache(self) -> str:
        """The dtype of keys and values."""
        return self.kv_dtype or self.activations

    @property
    def activations(self) -> str:
        """The dtype between layers, and of embedding, head and norms."""
        return self.dtype if self.dtype in ("fp32", "fp16", "bf16") else "bf16"

    def __str__(self) -> str:
        cache = "" if self.cache == self.activations else f", cache in {self.cache}"
        return f"{self.dtype}{cache}" + (f", {self.tp} devices" if self.tp > 1 else "")


class Shard:
    """What one of `layout.tp` devices holds of a model: counts and bytes, worked out once.

    Numbers of one layer unless they say otherwise. Raises ValueError where heads cannot be shared evenly.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        c, tp = config, layout.tp
        if c.n_heads % tp or (c.n_kv_heads % tp and tp % c.n_kv_heads):
            heads = f"{c.n_heads} query and {c.n_kv_heads} key/value heads"
            raise ValueError(f"tp {tp}: {heads} cannot be shared evenly")
        self.config, self.layout = config, layout
        self.n_heads = c.n_heads // tp
        self.n_kv_heads = max(c.n_kv_heads // tp, 1)  # with fewer heads than devices some hold the same one
        self.d_q, self.d_kv = self.n_heads * c.head_dim, self.n_kv_heads * c.head_dim
        self.d_ff = -(-c.d_ff // tp)
        self.weight = DTYPES[layout.dtype]  # bytes of one, in the layers' matrices
        self.wide = DTYPES[layout.activations]  # bytes of one, elsewhere
        self.kv_bytes = 2 * self.d_kv * DTYPES[layout.cache]  # keys and values of one token
        self.attention_params = c.d_model * (2 * self.d_q + 2 * self.d_kv)
        self.router_params = c.d_model * c.n_experts
        self.expert_params = 3 * c.d_model * self.d_ff
        self.active_params = (
            self.attention_params + self.router_params + max(c.n_active, 1) * self.expert_params
        )
        self.head_params = -(-c.vocab_size // tp) * c.d_model

    def read_bytes(self, n_tokens: int) -> float:
        """Bytes of the layer's weights that `n_tokens` tokens read: of an MoE, the experts they touch."""
        c = self.config
        if not c.n_experts:
            return (self.attention_params + self.expert_params) * self.weight
        touched = c.experts_touched(n_tokens) * self.expert_params
        return (self.attention_params + touched) * self.weight + self.router_params * self.wide

    @property
    def layer_bytes(self) -> float:
        """Bytes of all of a layer's weights."""
        c = self.config
        matrices = self.attention_params + max(c.n_experts, 1) * self.expert_params
        norms = 2 * c.d_model + 2 * c.head_dim * c.qk_norm
        biases = (self.d_q + 2 * self.d_kv) * c.qkv_bias + c.d_model * c.o_bias
        biases += (2 * self.d_ff + c.d_model) * c.mlp_bias
        return matrices * self.weight + (norms + biases + self.router_params) * self.wide

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights: layers, embedding, last norm, and a head of its own unless it is tied."""
        c = self.config
        ends = self.head_params * (1 if c.tied else 2) + c.d_model
        return c.n_layers * self.layer_bytes + ends * self.wide

    def block_bytes(self, n_tokens: int = 1) -> float:
        """Bytes of the keys and values of `n_tokens` tokens, in all layers."""
        return self.config.n_layers * self.kv_bytes * n_tokens

    def activation_bytes(self, n_tokens: int) -> float:
        """Bytes that a pass over `n_tokens` tokens holds at its widest place, inside an MLP.

        The residual and the layer's input; both inputs of the gate, and their product.
        """
        c = self.config
        wide = 3 * self.d_ff * max(c.n_active, 1)
        return n_tokens * (2 * c.d_model + max(wide, self.d_q + 2 * self.d_kv + c.d_model)) * self.wide

    def logit_bytes(self, n_rows: int) -> float:
        """Bytes of `n_rows` rows of logits: as the head leaves them, and again in 32 bits for sampling."""
        return n_rows * self.config.vocab_size * (self.wide + 4)


def all_reduce_s(n_bytes: float, layout: Layout, device: Device) -> float:
    """Seconds in which `tp` devices add up `n_bytes` that each of them has: latency + bytes / link.

    A ring sends 2(tp - 1)/tp of the bytes over each link, in as many steps of latency as there are hops.
    Raises ValueError where the device's link is not known.
    """
    if layout.tp == 1:
        return 0.0
    if not device.link:
        raise ValueError(f"device {device.name!r} has no link: {layout.tp} of them have no price")
    latency, share = LINKS["nvlink" if device.link > NVLINK else "pcie"]
    travel = 2 * (layout.tp - 1) / layout.tp * n_bytes
    return latency + travel / (share * device.link)
