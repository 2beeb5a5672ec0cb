"""How much memory a run needs, from the model's config.json alone: no torch, no transformers, no weights.

What is counted are the tensors that autograd keeps for the backward pass, layer by layer, as transformers writes the
layers and torch's CPU kernels save them (`scaled_dot_product_attention`, or plain matrix products where a family has
soft caps or dropout in its attention). `tests/ml/test_memory_measured.py` compares that count with the tensors really
saved, and the whole with the peak of a process that trains.

Only the CPU was measured. For a GPU the same tensors are counted without what the C library's allocator adds, and
without the context of CUDA (some hundred MiB) and its kernels' workspaces: a lower bound that nothing here checks.
Memory of Python and the imported libraries (about 350 MiB with torch and transformers) comes on top everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from aitrain.config.architectures import LARGEST_LOGITS
from aitrain.registry import trainer_of

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.plan import Plan

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

LARGEST_HEAP_BLOCK = 32 * 2**20
"""glibc maps larger blocks one by one and returns them at once; smaller ones come to stay in the heap, because its
threshold grows with the blocks that are freed, up to this limit (M_MMAP_THRESHOLD in mallopt(3), 64-bit)."""
HEAP_WASTE = 0.45
"""Measured, not derived: holes of the heap, as a share of the activations and logits in it. Models of 12 to 24
layers showed 0.3 to 0.5 with glibc 2.36 after 3 to 12 steps, and none with MALLOC_MMAP_THRESHOLD_=65536, which maps
every large tensor and so returns it."""
ADAPTER_WASTE = 2.2
"""Measured: how many times more of it there is with adapters (1.6 to 2.9 on three shapes). Each adapted layer makes
further tensors that die at once."""
HEAP_WASTE_CHECKPOINTING = 0.35
"""The same with gradient checkpointing, as a share of what all layers would keep without it (0.2 to 0.35 on three
shapes): layer after layer is computed again, and each leaves holes."""
RUNTIME = 16 * 2**20
"""Measured: code pages and buffers of the matrix library that the first step brings in."""


@dataclass(frozen=True)
class Estimate:
    """Bytes of one process at the moment it needs most, above what Python and the libraries take."""

    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int
    overhead_bytes: int

    @property
    def total(self) -> int:
        """The peak in bytes."""
        return (
            self.parameters_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
            + self.logits_bytes
            + self.overhead_bytes
        )


def describe(estimate: Estimate) -> str:
    """One line: `1.20 GiB: weights 0.30, gradients 0.30, ...`, all in the unit of the total."""
    unit, name = (2**30, "GiB") if estimate.total >= 2**30 else (2**20, "MiB")
    digits = 2 if name == "GiB" else 0
    parts = {
        "weights": estimate.parameters_bytes,
        "gradients": estimate.gradients_bytes,
        "optimizer": estimate.optimizer_bytes,
        "activations": estimate.activations_bytes,
        "logits": estimate.logits_bytes,
        "allocator": estimate.overhead_bytes,
    }
    listed = ", ".join(f"{key} {value / unit:,.{digits}f}" for key, value in parts.items())
    return f"{estimate.total / unit:,.{digits}f} {name}: {listed}"


# --- shapes ----------------------------------------------------------------------------------------------------------


Kind = Literal["qkv", "attention_out", "up", "down", "linear", "head", "embedding", "norm", "experts"]
LINEAR = frozenset({"qkv", "attention_out", "up", "down", "linear"})
"""Linear layers besides the head: what gets an adapter by default. In a decoder layer they are told apart by place."""


@dataclass(frozen=True)
class Weight:
    """A matrix (or vector) of the model. `{}` in `path` stands for the number of its layer."""

    path: str
    out: int
    into: int = 1
    copies: int = 1
    kind: Kind = "linear"
    bias: bool = False

    @property
    def size(self) -> int:
        """Elements of one copy."""
        return self.out * (self.into + self.bias)


@dataclass(frozen=True)
class Shape:
    """What a family's config says about sizes, in one vocabulary for all families."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    weights: tuple[Weight, ...] = ()
    tied: bool = False
    rms: bool = True
    """Root mean square norms, written in Python; else torch's layer norm."""
    gated: bool = True
    activation: str = "silu"
    post_norms: bool = False
    """Norms after attention and MLP too (Gemma 2 and 3)."""
    parallel: bool = False
    """Attention and MLP read the same residual (GPT-NeoX)."""
    qk_norm: bool = False
    fused: bool = False
    """Queries, keys and values are one matrix, gate and up another (Phi-3)."""
    partial_rotary: bool = False
    single_norms: bool = False
    """The norm's weight is multiplied in float32 (Gemma)."""
    attention: Literal["fused", "eager", "dropout"] = "fused"
    """The kernel that keeps no scores; products written in Python; or torch's own products, as dropout needs them."""
    score_tensors: int = 0
    """Tensors of rows x heads x length x length that attention keeps, where it is not fused."""
    hidden_dropout: bool = False
    softcap: bool = False
    """Soft cap on the logits."""
    window: int | None = None
    experts_per_token: int = 0

    @property
    def attention_width(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all keys of a token."""
        return self.kv_heads * self.head_dim


Config = Mapping[str, Any]


def _sizes(config: Config, **names: str) -> Shape:
    """The sizes, under the names a family gives them. Raises KeyError for one that is missing."""
    name = {key: names.get(key, key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    # A config in memory may use transformers' names for all families; a config.json uses the family's own.
    read = {key: config[own] if own in config else config[key] for key, own in name.items()}
    hidden, heads = int(read["hidden_size"]), int(read["num_attention_heads"])
    return Shape(
        hidden=hidden,
        layers=int(read["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        intermediate=int(config.get("intermediate_size") or 4 * hidden),
        vocabulary=int(config["vocab_size"]),
        activation=str(config.get("hidden_activation") or config.get("hidden_act") or "silu"),
        window=config.get("sliding_window"),
    )


def _llama_like(
    config: Config, *, tied: bool = False, qkv_bias: bool = False, head_dim: int | None = None, **traits: Any
) -> Shape:
    """Embedding, layers of attention and gated MLP with root mean square norms, head."""
    shape = replace(_sizes(config), tied=bool(config.get("tie_word_embeddings", tied)), **traits)
    if head_dim is not None and config.get("head_dim") is None:
        shape = replace(shape, head_dim=head_dim)
    bias = bool(config.get("attention_bias", False))
    weights = [
        Weight("model.embed_tokens", shape.vocabulary, shape.hidden, kind="embedding"),
        *_llama_attention(shape, bias or qkv_bias, bias),
        *_llama_norms(shape),
        Weight("model.norm", shape.hidden, kind="norm"),
        *_llama_mlp(config, shape),
        *_head(shape, "lm_head"),
    ]
    return replace(shape, weights=tuple(weights))


def _llama_attention(shape: Shape, qkv_bias: bool, out_bias: bool) -> Iterator[Weight]:
    attention, hidden, count = "model.layers.{}.self_attn.", shape.hidden, shape.layers
    widths = {"q_proj": shape.attention_width, "k_proj": shape.kv_width, "v_proj": shape.kv_width}
    if shape.fused:
        widths = {"qkv_proj": sum(widths.values())}
    for name, width in widths.items():
        yield Weight(attention + name, width, hidden, count, kind="qkv", bias=qkv_bias)
    yield Weight(attention + "o_proj", hidden, shape.attention_width, count, kind="attention_out", bias=out_bias)
    if shape.qk_norm:
        for name in ("q_norm", "k_norm"):
            yield Weight(attention + name, shape.head_dim, copies=count, kind="norm")


def _llama_norms(shape: Shape) -> Iterator[Weight]:
    names = ["input_layernorm", "post_attention_layernorm"]
    if shape.post_norms:
        names += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for name in names:
        yield Weight("model.layers.{}." + name, shape.hidden, copies=shape.layers, kind="norm")


def _llama_mlp(config: Config, shape: Shape) -> Iterator[Weight]:
    mlp, hidden, width, count = "model.layers.{}.mlp.", shape.hidden, shape.intermediate, shape.layers
    bias = bool(config.get("mlp_bias", False))
    if shape.experts_per_token:
        experts = int(config["num_experts"] if "num_experts" in config else config["num_local_experts"])
        yield Weight(mlp + "gate", experts, hidden, count, kind="experts")
        yield Weight(mlp + "experts.gate_up_proj", experts * 2 * width, hidden, count, kind="experts")
        yield Weight(mlp + "experts.down_proj", experts * hidden, width, count, kind="experts")
        return
    if shape.fused:
        yield Weight(mlp + "gate_up_proj", 2 * width, hidden, count, kind="up")
    else:
        yield Weight(mlp + "gate_proj", width, hidden, count, kind="up", bias=bias)
        yield Weight(mlp + "up_proj", width, hidden, count, kind="up", bias=bias)
    yield Weight(mlp + "down_proj", hidden, width, count, kind="down", bias=bias)


def _head(shape: Shape, path: str, bias: bool = False) -> Iterator[Weight]:
    if not shape.tied:
        yield Weight(path, shape.vocabulary, shape.hidden, kind="head", bias=bias)


def _gemma(config: Config, **traits: Any) -> Shape:
    return _llama_like(config, tied=True, head_dim=256, single_norms=True, **traits)


def _gemma2(config: Config) -> Shape:
    # Soft caps need attention as plain products: the capped scores' tanh and the softmax are kept.
    capped = config.get("attn_logit_softcapping", 50.0) is not None
    final = config.get("final_logit_softcapping", 30.0) is not None
    attention: dict[str, Any] = {"attention": "eager", "score_tensors": 1 + capped}
    return _gemma(config, post_norms=True, softcap=final, **attention)


def _gemma3(config: Config) -> Shape:
    final = config.get("final_logit_softcapping") is not None
    return _gemma(config, post_norms=True, qk_norm=True, softcap=final)


def _mixtral(config: Config) -> Shape:
    return _llama_like(config, experts_per_token=int(config.get("num_experts_per_tok", 2)))


def _qwen3_moe(config: Config) -> Shape:
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise KeyError("layers of two kinds")
    experts = {**config, "intermediate_size": config["moe_intermediate_size"]}
    return _llama_like(experts, qk_norm=True, experts_per_token=int(config.get("num_experts_per_tok", 8)))


def _classic(
    shape: Shape, layers: str, names: Mapping[str, Sequence[str]], outside: Iterable[Weight], *, bias: bool = True
) -> Shape:
    """Layers with layer norms and a plain MLP; `names` tells how a family calls each part of one."""
    hidden, count = shape.hidden, shape.layers
    qkv = names["qkv"]
    places: list[tuple[Kind, str, int, int]] = [
        *(("qkv", name, 3 * hidden // len(qkv), hidden) for name in qkv),
        ("attention_out", names["attention_out"][0], hidden, hidden),
        ("up", names["up"][0], shape.intermediate, hidden),
        ("down", names["down"][0], hidden, shape.intermediate),
    ]
    linear = [Weight(layers + name, out, into, count, kind, bias) for kind, name, out, into in places]
    norms = [Weight(f"{layers}{key}", hidden, copies=count, kind="norm", bias=True) for key in ("norm_1", "norm_2")]
    return replace(shape, rms=False, gated=False, weights=(*linear, *norms, *outside))


def _gpt2(config: Config) -> Shape:
    shape = _sizes(config, hidden_size="n_embd", num_hidden_layers="n_layer", num_attention_heads="n_head")
    hidden = shape.hidden
    dropped = config.get("attn_pdrop", 0.1) > 0
    shape = replace(
        shape,
        kv_heads=shape.heads,
        head_dim=hidden // shape.heads,
        intermediate=int(config.get("n_inner") or 4 * hidden),
        tied=bool(config.get("tie_word_embeddings", True)),
        activation=str(config.get("activation_function", "gelu_new")),
        # torch has no CPU kernel with dropout: softmax, the dropout's factors and their product are kept.
        attention="dropout" if dropped else "fused",
        score_tensors=3 if dropped else 0,
        hidden_dropout=config.get("resid_pdrop", 0.1) > 0,
    )
    names = {"qkv": ["attn.c_attn"], "attention_out": ["attn.c_proj"], "up": ["mlp.c_fc"], "down": ["mlp.c_proj"]}
    positions = config.get("n_positions", config.get("max_position_embeddings", 1024))
    outside = [
        Weight("transformer.wte", shape.vocabulary, hidden, kind="embedding"),
        Weight("transformer.wpe", int(positions), hidden, kind="embedding"),
        Weight("transformer.ln_f", hidden, kind="norm", bias=True),
        *_head(shape, "lm_head"),
    ]
    return _classic(shape, "transformer.h.{}.", names, outside)


def _gpt_neox(config: Config) -> Shape:
    shape = replace(
        _sizes(config),
        tied=bool(config.get("tie_word_embeddings", False)),
        activation=str(config.get("hidden_act", "gelu")),
        parallel=bool(config.get("use_parallel_residual", True)),
        partial_rotary=True,
        hidden_dropout=config.get("hidden_dropout", 0.0) > 0,
    )
    names = {
        "qkv": ["attention.query_key_value"],
        "attention_out": ["attention.dense"],
        "up": ["mlp.dense_h_to_4h"],
        "down": ["mlp.dense_4h_to_h"],
    }
    outside = [
        Weight("gpt_neox.embed_in", shape.vocabulary, shape.hidden, kind="embedding"),
        Weight("gpt_neox.final_layer_norm", shape.hidden, kind="norm", bias=True),
        *_head(shape, "lm_head"),
    ]
    return _classic(shape, "gpt_neox.layers.{}.", names, outside)


def _opt(config: Config) -> Shape:
    base = _sizes(config)
    shape = replace(
        base,
        kv_heads=base.heads,
        head_dim=base.hidden // base.heads,
        intermediate=int(config["ffn_dim"]),
        tied=bool(config.get("tie_word_embeddings", True)),
        activation=str(config.get("activation_function", "relu")),
        hidden_dropout=config.get("dropout", 0.1) > 0,
    )
    if not config.get("do_layer_norm_before", True) or not config.get("layer_norm_elementwise_affine", True):
        raise KeyError("an OPT of another build")
    hidden, embedded = shape.hidden, int(config.get("word_embed_proj_dim") or shape.hidden)
    names = {
        "qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attention_out": ["self_attn.out_proj"],
        "up": ["fc1"],
        "down": ["fc2"],
    }
    # Position 0 and 1 are reserved, so the table has two rows more than there are positions.
    outside = [
        Weight("model.decoder.embed_tokens", shape.vocabulary, embedded, kind="embedding"),
        Weight("model.decoder.embed_positions", int(config["max_position_embeddings"]) + 2, hidden, kind="embedding"),
        Weight("model.decoder.final_layer_norm", hidden, kind="norm", bias=True),
    ]
    if embedded != hidden:
        outside += [
            Weight("model.decoder.project_in", hidden, embedded),
            Weight("model.decoder.project_out", embedded, hidden),
        ]
    if not shape.tied:
        outside.append(Weight("lm_head", shape.vocabulary, embedded, kind="head"))
    return _classic(shape, "model.decoder.layers.{}.", names, outside, bias=bool(config.get("enable_bias", True)))


def _bloom(config: Config) -> Shape:
    base = _sizes(config, num_hidden_layers="n_layer", num_attention_heads="n_head")
    shape = replace(
        base,
        kv_heads=base.heads,
        head_dim=base.hidden // base.heads,
        intermediate=4 * base.hidden,
        tied=bool(config.get("tie_word_embeddings", True)),
        activation="gelu",
        attention="eager",  # the bias by distance is added inside the product
        score_tensors=1 if config.get("attention_dropout", 0.0) == 0 else 3,
        hidden_dropout=config.get("hidden_dropout", 0.0) > 0,
    )
    names = {
        "qkv": ["self_attention.query_key_value"],
        "attention_out": ["self_attention.dense"],
        "up": ["mlp.dense_h_to_4h"],
        "down": ["mlp.dense_4h_to_h"],
    }
    outside = [
        Weight("transformer.word_embeddings", shape.vocabulary, shape.hidden, kind="embedding"),
        Weight("transformer.word_embeddings_layernorm", shape.hidden, kind="norm", bias=True),
        Weight("transformer.ln_f", shape.hidden, kind="norm", bias=True),
        *_head(shape, "lm_head"),
    ]
    return _classic(shape, "transformer.h.{}.", names, outside)


FAMILIES: dict[str, Callable[[Config], Shape]] = {
    "llama": _llama_like,
    "mistral": _llama_like,
    "mixtral": _mixtral,
    "qwen2": lambda config: _llama_like(config, qkv_bias=True),
    "qwen3": lambda config: _llama_like(config, qk_norm=True, head_dim=128),
    "qwen3_moe": _qwen3_moe,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi3": lambda config: _llama_like(config, fused=True, partial_rotary=True),
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "opt": _opt,
    "bloom": _bloom,
}
"""Families known here, by `model_type`."""


def shape_of(config: Config) -> Shape | None:
    """Sizes and weights of a model; None for an unknown family, or when the config leaves a size out."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        return None
    try:
        return family(config)
    except KeyError:
        return None


def parameters(config: Config) -> int | None:
    """How many parameters a causal language model of this config.json has; None for an unknown family."""
    shape = shape_of(config)
    return None if shape is None else sum(weight.size * weight.copies for weight in shape.weights)


# --- adapters --------------------------------------------------------------------------------------------------------


def lora_parameters(config: Config, r: int, target_modules: str | Sequence[str] | None = None) -> int | None:
    """Parameters of low-rank adapters: r x (inputs + outputs) a layer (Hu et al. 2021).

    `target_modules` as peft reads it: names (the end of a path), a regular expression over whole paths, or None for
    every linear layer but the head. None is returned for an unknown family.
    """
    shape = shape_of(config)
    if shape is None:
        return None
    return sum(count * r * (weight.out + weight.into) for weight, count in _adapted(shape, target_modules))


def _adapted(shape: Shape, targets: str | Sequence[str] | None) -> Iterator[tuple[Weight, int]]:
    """Weights that get an adapter, and in how many layers."""
    for weight in shape.weights:
        count = weight.copies
        if targets is None or targets == "all-linear":
            count *= weight.kind in LINEAR
        elif weight.kind in ("norm", "experts"):
            count = 0
        elif isinstance(targets, str):
            count = sum(bool(re.fullmatch(targets, weight.path.format(layer))) for layer in range(weight.copies))
        else:
            count *= any(f".{weight.path}".endswith(f".{name}") for name in targets)
        if count:
            yield weight, count


# --- what autograd keeps ---------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """Tensors of one size."""

    size: int
    """Bytes of one."""
    number: int = 1


@dataclass(frozen=True)
class Batch:
    """A micro-batch and the number formats in it."""

    rows: int
    length: int
    wide: int
    """Bytes of an element of the residual stream."""
    narrow: int
    """Bytes of an element of what a linear layer returns: 2 under autocast."""
    masked: bool
    adapted: frozenset[str] | None = None
    """Paths of the weights with an adapter; None when all weights are trained."""

    @property
    def tokens(self) -> int:
        """Positions, padding counted."""
        return self.rows * self.length

    def wide_block(self, width: int, count: int = 1) -> Block:
        """A tensor of so many elements a token, in the residual's format."""
        return Block(self.tokens * width * self.wide, count)

    def narrow_block(self, width: int, count: int = 1) -> Block:
        """A tensor of so many elements a token, in the linear layers' format."""
        return Block(self.tokens * width * self.narrow, count)

    def single_block(self, width: int, count: int = 1) -> Block:
        """A tensor of so many elements a token, in float32."""
        return Block(self.tokens * width * 4, count)

    def input_block(self, width: int, readers: Iterable[Weight]) -> Block:
        """The input of linear layers, kept for the gradient of their weights.

        All readers share one tensor, except where each makes a cast of its own: under autocast, and where an adapter in
        float32 sits on weights of two bytes.
        """
        trained = [weight for weight in readers if self.adapted is None or weight.path in self.adapted]
        if self.narrow < self.wide:
            return self.narrow_block(width, len(trained))
        if self.adapted is not None and self.wide < 4:
            return self.single_block(width, len(trained))
        return self.wide_block(width, min(len(trained), 1))


def _norm(shape: Shape, batch: Batch, width: int) -> list[Block]:
    """What one norm keeps besides its result: its input, and for root mean square the normalised input.

    Written in Python, that norm works in float32, whose copy is kept. The normalised input is there for the gradient of
    the norm's weight: not for a frozen one.
    """
    if not shape.rms:
        return [batch.wide_block(width)]
    trained = int(batch.adapted is None)
    normalised = batch.single_block(width, trained) if shape.single_norms else batch.wide_block(width, trained)
    return [batch.single_block(width), normalised]


def _layer(shape: Shape, batch: Batch) -> list[Block]:
    """What one decoder layer keeps for its backward pass."""
    hidden = shape.hidden

    def reading(kind: Kind) -> list[Weight]:
        return [weight for weight in shape.weights if weight.kind == kind]

    norms = 2 * _norm(shape, batch, hidden)
    if shape.parallel:
        norms = norms[: len(norms) // 2]  # both norms keep the same input
    if shape.post_norms:
        norms += 2 * _norm(shape, batch, hidden)
    blocks = [*norms, batch.input_block(hidden, reading("qkv"))]
    blocks += _attention(shape, batch, reading("attention_out"))
    if shape.experts_per_token:
        return blocks + _experts(shape, batch)
    blocks += [batch.input_block(hidden, reading("up")), *_mlp(shape, batch)]
    blocks.append(batch.input_block(shape.intermediate, reading("down")))
    if shape.hidden_dropout:
        blocks.append(batch.narrow_block(hidden, 2))  # the factors of two dropouts
    return blocks


def _attention(shape: Shape, batch: Batch, out: list[Weight]) -> list[Block]:
    """Queries, keys and values as the kernel got them, its result, and what it needs to recompute the scores."""
    width, keys = shape.attention_width, shape.kv_width
    blocks: list[Block] = []
    if shape.qk_norm:
        for part in (width, keys):
            blocks += _norm(shape, batch, part)
    if shape.attention != "fused":
        return [*blocks, *_with_scores(shape, batch), batch.input_block(width, out)]
    # Under a mask the keys and values of grouped queries are repeated; without one the kernel takes them as they are.
    blocks += [batch.narrow_block(width), batch.narrow_block(width if batch.masked else keys, 2)]
    if shape.partial_rotary and not shape.rms:
        blocks.append(batch.narrow_block(2 * width))  # the values are a part of one tensor with queries and keys
    blocks += [batch.narrow_block(width), batch.single_block(shape.heads)]  # result, log of the softmax's sum
    if shape.partial_rotary or (batch.adapted is not None and batch.wide < 4):
        blocks.append(batch.input_block(width, out))  # otherwise the output layer's input is the result itself
    if batch.masked:  # the mask is turned into numbers anew in each layer
        blocks.append(Block(batch.rows * batch.length**2 * batch.narrow))
    return blocks


def _with_scores(shape: Shape, batch: Batch) -> list[Block]:
    """Attention that keeps a number for each pair of positions. The softmax is taken in float32 everywhere."""
    scores, width = batch.rows * shape.heads * batch.length**2, shape.attention_width
    if shape.attention == "dropout":  # torch computes all of it in float32
        return [batch.single_block(width, 3), Block(scores * 4, shape.score_tensors)]
    cast = int(batch.narrow < 4)
    return [
        batch.narrow_block(width, 3),
        Block(scores * 4),
        Block(scores * batch.narrow, shape.score_tensors - 1 + cast),
    ]


def _mlp(shape: Shape, batch: Batch) -> list[Block]:
    """What the activation keeps; the input of the layer after it is counted with that layer."""
    # torch's own gelu and silu keep their input and relu its result (the next layer's input); `gelu_new` is written in
    # Python: x, x / 2, tanh, 1 + tanh. A gate keeps its input, its result and the factor beside it.
    kept = {"relu": 0, "gelu_new": 4, "gelu_fast": 4}.get(shape.activation, 1)
    return [batch.narrow_block(shape.intermediate, kept + (2 if shape.gated else 0))]


def _experts(shape: Shape, batch: Batch) -> list[Block]:
    """Each token goes to several experts: its copy and its result, and gate, up, activation and product for each."""
    routed = shape.experts_per_token
    return [
        batch.wide_block(shape.hidden),
        batch.narrow_block(routed * shape.hidden, 2),
        batch.narrow_block(routed * shape.intermediate * 2),
        batch.narrow_block(routed * shape.intermediate, 2),
    ]


def _around_layers(shape: Shape, batch: Batch) -> list[Block]:
    """Token ids, the last norm, the head's input, and the tanh of a soft cap."""
    head = [Weight("lm_head", shape.vocabulary, shape.hidden)] if batch.adapted is None else []
    blocks = [Block(batch.tokens * 8), *_norm(shape, batch, shape.hidden), batch.input_block(shape.hidden, head)]
    if shape.hidden_dropout:
        blocks.append(batch.wide_block(shape.hidden))
    if shape.softcap:
        blocks.append(batch.narrow_block(shape.vocabulary))
    return blocks


def saved_for_backward(shape: Shape, batch: Batch, *, checkpointing: bool = False) -> list[Block]:
    """All tensors that are kept between the forward and the backward pass, the loss apart.

    With gradient checkpointing only the input of each layer is, and while one layer is computed again, what it keeps.
    Weights that autocast turned into 16 bits are kept with the rest.
    """
    blocks = _around_layers(shape, batch)
    layer = _layer(shape, batch)
    if checkpointing:
        blocks += [batch.wide_block(shape.hidden, shape.layers), *layer]
    else:
        blocks += [Block(size, number * shape.layers) for size, number in layer]
    if batch.narrow < batch.wide:
        cast = [weight for weight in shape.weights if weight.kind in LINEAR | {"head", "experts"}]
        if shape.tied:
            cast += [weight for weight in shape.weights if weight.kind == "embedding"][:1]
        blocks += [Block(weight.size * batch.narrow, weight.copies) for weight in cast]
    return blocks


def _logits(shape: Shape, batch: Batch, labelled: float, made: str = "in parts") -> list[Block]:
    """In the backward pass log-probabilities of labelled positions, their gradient, and that of the logits; in float32,
    and at most so many at once (see `aitrain.ml.heads`). Whole, they are there for all positions, with their
    log-probabilities and the gradients of both."""
    if made == "none":
        return []
    if made == "whole":
        return [Block(batch.rows * batch.length * shape.vocabulary * 4, 4)]
    picked = int(batch.rows * (batch.length - 1) * labelled) * shape.vocabulary
    blocks = [Block(min(picked, LARGEST_LOGITS) * 4, 3)]
    if batch.narrow < 4:
        blocks.append(Block(min(picked, LARGEST_LOGITS) * batch.narrow))
    return blocks


def _bytes(blocks: Iterable[Block]) -> int:
    return sum(size * number for size, number in blocks)


# --- the estimate ----------------------------------------------------------------------------------------------------


def estimate(
    config: Config,
    *,
    batch_size: int,
    length: int,
    parameters: int | None = None,
    trainable: int | None = None,
    dtype_bytes: int = 4,
    precision: str = "fp32",
    optimizer: str = "adamw",
    gradient_checkpointing: bool = False,
    accumulation: int = 1,
    adapter: Mapping[str, Any] | None = None,
    labelled: float = 1.0,
    processes: int = 1,
    device: str = "cpu",
    logits_made: str = "in parts",
    frozen_models: int = 0,
) -> Estimate | None:
    """Peak memory of one training process; None for an unknown family.

    length: tokens a row of a micro-batch, padding counted. labelled: share of the positions that carry loss. adapter:
    `r`, `target_modules` (see `lora_parameters`), or None when all weights are trained. parameters and trainable
    replace our own counts where they are known better. logits_made: see `aitrain.config.options.Load`. frozen_models:
    models of the same size beside the trained one.
    """
    shape = shape_of(config)
    if shape is None:
        return None
    adapted = None
    if adapter is not None:
        adapted = list(_adapted(shape, adapter.get("target_modules")))
    own = sum(weight.size * weight.copies for weight in shape.weights)
    trained = _trained_blocks(shape, adapted, int(adapter["r"]) if adapter else 0, dtype_bytes)
    if trainable is not None:
        trained = [Block(trainable * (4 if adapter else dtype_bytes))]
    weights = (parameters or own) * dtype_bytes * (1 + frozen_models) + (_bytes(trained) if adapter else 0)
    autocast = precision in ("bf16", "fp16") and dtype_bytes == 4
    batch = Batch(
        rows=batch_size,
        length=length,
        wide=dtype_bytes,
        narrow=2 if autocast else dtype_bytes,
        # Rows of one length need no mask, nor does a single row; rows of several lengths do, and so does a window.
        masked=batch_size > 1 or (shape.window is not None and shape.window < length),
        adapted=None if adapted is None else frozenset(weight.path for weight, _ in adapted),
    )
    saved = saved_for_backward(shape, batch, checkpointing=gradient_checkpointing)
    logits = _logits(shape, batch, labelled, logits_made)
    churned, waste = saved + logits, HEAP_WASTE
    if gradient_checkpointing:
        churned, waste = saved_for_backward(shape, batch), HEAP_WASTE_CHECKPOINTING
    if adapter is not None:
        waste *= ADAPTER_WASTE
    gradients = trained * (2 if processes > 1 else 1)  # DistributedDataParallel holds them a second time, in buckets
    return _at_the_peak(
        weights,
        _Phases(saved, logits, churned, gradients, _tied_sum(shape, adapter, dtype_bytes)),
        _optimizer_bytes(optimizer, shape, trained, adapter is not None),
        accumulating=accumulation > 1,
        heap=LARGEST_HEAP_BLOCK if device.startswith("cpu") else 0,
        waste=waste,
    )


def _trained_blocks(shape: Shape, adapted: list[tuple[Weight, int]] | None, r: int, dtype_bytes: int) -> list[Block]:
    """Trained parameters as tensors. peft keeps adapters in float32 whatever the frozen weights are."""
    if adapted is None:
        return [Block(weight.size * dtype_bytes, weight.copies) for weight in shape.weights]
    return [Block(r * width * 4, count) for weight, count in adapted for width in (weight.out, weight.into)]


def _tied_sum(shape: Shape, adapter: Mapping[str, Any] | None, dtype_bytes: int) -> list[Block]:
    """Weights shared by embedding and head get two gradients, which are added up: two more tensors for a moment."""
    embedding = next(weight for weight in shape.weights if weight.kind == "embedding")
    return [Block(embedding.size * dtype_bytes, 2)] if shape.tied and adapter is None else []


def _optimizer_bytes(optimizer: str, shape: Shape, trained: list[Block], is_adapter: bool) -> int:
    """AdamW keeps two moments in the weights' format, SGD without momentum nothing, Adafactor a row and a column."""
    if optimizer == "adamw":
        return 2 * _bytes(trained)
    if optimizer == "sgd":
        return 0
    if is_adapter:
        return _bytes(trained)  # two thin matrices: hardly smaller when factored
    state = sum(4 * weight.copies * (weight.out + weight.into * (weight.into > 1)) for weight in shape.weights)
    # Squared gradient and update of the largest tensor, while it is its turn.
    return state + 2 * max(block.size for block in trained)


@dataclass(frozen=True)
class _Phases:
    """Tensors by when they live: until the backward pass, during the loss, and from the backward pass on."""

    saved: list[Block]
    logits: list[Block]
    churned: list[Block]
    """What leaves holes in the heap."""
    gradients: list[Block]
    tied_sum: list[Block]


def _at_the_peak(
    weights: int, phases: _Phases, optimizer: int, *, accumulating: bool, heap: int, waste: float
) -> Estimate:
    """Add up what lives at once.

    Large blocks are returned when freed, so of them either the loss with all activations counts, or the end of the
    backward pass with all gradients. Small ones stay in the heap after their use, and its holes do not fit what comes
    next: of them both count.
    """

    def split(blocks: list[Block]) -> tuple[int, int]:
        kept = _bytes(block for block in blocks if block.size <= heap)
        return kept, _bytes(blocks) - kept

    saved, saved_returned = split(phases.saved)
    logits, logits_returned = split(phases.logits)
    gradients, gradients_returned = split(phases.gradients)
    summing, summing_returned = split(phases.tied_sum)
    at_loss = saved_returned + logits_returned + (gradients_returned if accumulating else 0)
    at_end = gradients_returned + summing_returned
    overhead = int(waste * split(phases.churned)[0]) + (RUNTIME if heap else 0)
    gradients += summing
    if at_loss >= at_end:
        saved, logits = saved + saved_returned, logits + logits_returned
        gradients += gradients_returned if accumulating else 0
    else:
        gradients += at_end
    return Estimate(weights, gradients, optimizer, saved, logits, overhead)


def estimate_run(run: Run, made: Plan, config: Config, parameters: int | None) -> Estimate | None:
    """The estimate for a run as planned: rows as long as they may become, loss on every position.

    Both make it an upper bound for data with short rows or short answers. None for an unknown family.
    """
    peft: Any = run.peft
    load = trainer_of(run).load
    adapter = {"r": peft.r, "target_modules": peft.target_modules} if peft.name == "lora" else None
    dtype = made.dtype if made.dtype != "auto" else str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return estimate(
        config,
        batch_size=run.train.batch_size * load.rows,
        length=_length(run),
        parameters=parameters,
        dtype_bytes=DTYPE_BYTES.get(dtype, 4),
        precision=made.precision,
        optimizer=run.train.optimizer,
        gradient_checkpointing=run.train.gradient_checkpointing,
        accumulation=run.train.gradient_accumulation,
        adapter=adapter,
        processes=made.processes,
        device=made.device,
        logits_made=load.logits,
        frozen_models=_further_models(run),
    )


def _length(run: Run) -> int:
    """The most tokens that a row may have."""
    if run.trainer.name == "pretrain":
        return run.data.block_size
    rl: Any = run.rl
    if "prompts" in trainer_of(run).shapes and rl.name != "none":
        return int((run.data.max_prompt_length or run.data.max_length) + rl.max_new_tokens)
    return run.data.max_length


def _further_models(run: Run) -> int:
    """How many times the model's weights are needed for other models, each taken to be as large: a reference, unless it
    is what an adapter was put on or nothing holds the model to it; reward models; a value model with its gradients and
    two moments."""
    trainer, rl = run.trainer, run.rl
    found = 0
    if "ref_model" in type(trainer).model_fields and not _is_free(run):
        found += int(getattr(trainer, "ref_model", None) is not None or run.peft.name == "none")
    if getattr(trainer, "value_model", None) is not None:
        found += 4
    if rl.name != "none":
        from aitrain.rl.chosen import reward_models

        section: Any = rl
        found += len(reward_models(section))
    return found


def _is_free(run: Run) -> bool:
    """Whether the weight of the reference is 0, where it is `rl.kl_coef`."""
    rl: Any = run.rl
    held = "beta" in type(run.trainer).model_fields
    return bool(rl.name != "none" and not held and rl.kl_coef == 0)
