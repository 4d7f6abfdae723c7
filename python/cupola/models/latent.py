"""Latent attention in a model (DeepSeek-AI, "DeepSeek-V2", 2024): its sizes, and its parameters in a checkpoint.

What it computes is in `kernels/latent_operations.py`, in which order in `latent_attention.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cupola.kernels.latent_shape import LatentShape
from cupola.models.sizes import check_multiples
from cupola.quantize.formats import Format
from cupola.quantize.parameter import Parameter, Role, Source


@dataclass(frozen=True)
class Latent:
    """The latent attention of a decoder; all its layers have the same.

    Args:
        shape: sizes of heads and of what pages hold.
        query_rank: components of the vector that queries are products of; 0: they are products of the stream itself.
        eps: of the norms of latents.
        interleaved: rotary pairs are neighbours in the checkpoint.
    """

    shape: LatentShape
    query_rank: int = 0
    eps: float = 1e-6
    interleaved: bool = True

    def check(self) -> None:
        """Refuses sizes that the kernels cannot compute with. Raises UnsupportedError."""
        sizes = {
            "kv_lora_rank": (self.shape.latent, 16),
            "qk_rope_head_dim": (self.shape.rotary, 16),
            "qk_nope_head_dim": (self.shape.plain, 16),
            "v_head_dim": (self.shape.value, 16),
        }
        if self.query_rank:
            sizes["q_lora_rank"] = (self.query_rank, 16)
        check_multiples(sizes)


def declare(latent: Latent, hidden: int, name: str, prefix: str, has: Callable[[str], bool]) -> Iterator[Parameter]:
    """The parameters of one layer.

    Args:
        hidden: width of the stream.
        name: what they are called in the compiled model.
        prefix: of the checkpoint's tensors.
        has: whether the checkpoint has a tensor of this name.
    """
    shape, rank = latent.shape, latent.query_rank
    heads = range(shape.heads)
    queries = tuple(h * shape.query + i for h in heads for i in _order(latent, shape.plain))
    if rank:
        yield _matrix(f"{name}.query_latent", Source(f"{prefix}q_a_proj.weight", (rank, hidden)))
        yield _norm(f"{name}.query_norm", f"{prefix}q_a_layernorm.weight", rank)
    source = f"{prefix}q_b_proj.weight" if rank else f"{prefix}q_proj.weight"
    yield _matrix(f"{name}.query", Source(source, (shape.heads * shape.query, rank or hidden), queries))
    stored = tuple(_order(latent, shape.latent))
    yield _matrix(f"{name}.latent", Source(f"{prefix}kv_a_proj_with_mqa.weight", (shape.stored, hidden), stored))
    yield _norm(f"{name}.latent_norm", f"{prefix}kv_a_layernorm.weight", shape.latent)
    yield from _expansions(shape, name, prefix, has)
    yield _matrix(f"{name}.output", Source(f"{prefix}o_proj.weight", (hidden, shape.heads * shape.value)))


def _expansions(shape: LatentShape, name: str, prefix: str, has: Callable[[str], bool]) -> Iterator[Parameter]:
    """What makes keys and values of the latent: one tensor, or one for each, where that of keys is turned round."""
    heads, keys = range(shape.heads), f"{prefix}k_b_proj.weight"
    if has(keys):
        turned, values = (shape.heads, shape.latent, shape.plain), (shape.heads, shape.value, shape.latent)
        yield _matrix(f"{name}.key", *(Source(keys, turned, index=h) for h in heads))
        yield _matrix(f"{name}.value", *(Source(f"{prefix}v_b_proj.weight", values, index=h) for h in heads))
        return
    # The rows of a head: what makes its keys, then what makes its values.
    both, tensor = shape.plain + shape.value, f"{prefix}kv_b_proj.weight"
    whole = (shape.heads * both, shape.latent)
    columns = (Source(tensor, whole, transposed=True, inputs=(h * both, h * both + shape.plain)) for h in heads)
    yield _matrix(f"{name}.key", *columns)
    rows = tuple(h * both + shape.plain + i for h in heads for i in range(shape.value))
    yield _matrix(f"{name}.value", Source(tensor, whole, rows))


def _order(latent: Latent, plain: int) -> Iterator[int]:
    """Rows of `plain` components and of those that rotate, whose pairs are made of halves."""
    rotary = range(latent.shape.rotary)
    pairs = [*rotary[::2], *rotary[1::2]] if latent.interleaved else rotary
    yield from range(plain)
    yield from (plain + i for i in pairs)


def _matrix(name: str, *sources: Source) -> Parameter:
    return Parameter(f"{name}.weight", Role.LINEAR, sources, Format.F32)


def _norm(name: str, tensor: str, width: int) -> Parameter:
    return Parameter(f"{name}.weight", Role.VECTOR, (Source(tensor, (width,)),), Format.F32)
