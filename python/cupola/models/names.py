"""Where a family's checkpoints keep a decoder's parameters: names of tensors, and how rows lie in them.

The defaults are Llama's names in Hugging Face's folders. Names inside a layer follow `layer`, where {} is its number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Names of tensors, without `.weight` and `.bias`.

    Args:
        qkv: q, k and v; or the one tensor that holds the three.
        fused_qkv: that one tensor, where only some checkpoints of the family have it.
        qkv_by_head: that tensor holds, for each key-value head, the queries of its group, its key and its value.
        gate_up: gate and up; one tensor that holds both, one below the other; or the one of an ungated network.
        interleaved: rotary pairs are neighbours (x[2i], x[2i + 1]), where ours are (x[i], x[i + D/2]).
        transposed: matrices lie as [inputs, outputs].
        attention_norm, ffn_norm: before attention and network; attention_post_norm, ffn_post_norm: after them.
    """

    embedding: str = "model.embed_tokens"
    positions: str = ""
    head: str = "lm_head"
    norm: str = "model.norm"
    layer: str = "model.layers.{}."
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    fused_qkv: str = "self_attn.qkv_proj"
    qkv_by_head: bool = False
    interleaved: bool = False
    transposed: bool = False
    output: str = "self_attn.o_proj"
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"
    sinks: str = "self_attn.sinks"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    attention_norm: str = "input_layernorm"
    attention_post_norm: str = "post_attention_layernorm"
    ffn_norm: str = "post_attention_layernorm"
    ffn_post_norm: str = "post_feedforward_layernorm"


@dataclass(frozen=True)
class Heads:
    """Rows of the projections to q, k and v: how many heads, how large, and how much of one rotates."""

    queries: int
    keys: int
    dim: int
    rotary_dim: int


RowOrder = tuple[int, ...] | None


def head_order(names: Names, dim: int, rotary_dim: int) -> RowOrder:
    """The components of a head of q or k with those that rotate in halves; None: as they lie."""
    if not names.interleaved:
        return None
    return (*range(0, rotary_dim, 2), *range(1, rotary_dim, 2), *range(rotary_dim, dim))


def qkv_orders(names: Names, heads: Heads) -> tuple[RowOrder, ...]:
    """For each tensor of `names.qkv`, the rows that make q, k and v, one after the other; None: all, as they lie."""
    group, dim = heads.queries // heads.keys, heads.dim

    def head(first: int, rotates: bool) -> list[int]:
        order = head_order(names, dim, heads.rotary_dim) if rotates else None
        return [first + row for row in order or range(dim)]

    def stacked(count: int, first: Callable[[int], int], rotates: bool) -> list[int]:
        return [row for index in range(count) for row in head(first(index), rotates)]

    if names.qkv_by_head:
        width = (group + 2) * dim
        order = [
            *stacked(heads.queries, lambda h: h // group * width + h % group * dim, True),
            *stacked(heads.keys, lambda h: h * width + group * dim, True),
            *stacked(heads.keys, lambda h: h * width + (group + 1) * dim, False),
        ]
        return (tuple(order),)
    if not names.interleaved:
        return tuple(None for _ in names.qkv)
    parts = [
        stacked(heads.queries, lambda h: h * dim, True),
        stacked(heads.keys, lambda h: h * dim, True),
        stacked(heads.keys, lambda h: h * dim, False),
    ]
    if len(names.qkv) == 3:
        return tuple(tuple(part) for part in parts)
    queries, keys = heads.queries * dim, heads.keys * dim
    shifted = [row + offset for part, offset in zip(parts, (0, queries, queries + keys), strict=True) for row in part]
    return (tuple(shifted),)
