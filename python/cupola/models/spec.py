"""The sizes of a decoder: everything that distinguishes one checkpoint of a family from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cupola.errors import UnsupportedError
from cupola.manifest import Task
from cupola.models.config import Config
from cupola.models.encoder_spec import EncoderSpec
from cupola.models.rotary import Rotary


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder-only transformer of the Llama shape.

    Args:
        vocab_size, hidden_size, intermediate_size, num_layers: as in config.json.
        num_heads, num_kv_heads, head_dim: attention heads; query heads share key-value heads evenly.
        norm_eps: of every RMSNorm.
        rotary: frequencies of the positions.
        max_context: tokens that the model was trained to see.
        tied: the output matrix is the token table.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    rotary: Rotary
    max_context: int
    tied: bool

    def check(self) -> None:
        """Refuses sizes that the kernels cannot compute with.

        Raises:
            UnsupportedError: naming the size, what it is and what it must be.
        """
        if self.num_kv_heads == 0 or self.num_heads % self.num_kv_heads:
            raise UnsupportedError(
                f"num_attention_heads {self.num_heads} is not a multiple of num_key_value_heads {self.num_kv_heads}"
            )
        multiples = {
            "hidden_size": (self.hidden_size, 8),
            "intermediate_size": (self.intermediate_size, 16),
            "head_dim": (self.head_dim, 16),
        }
        for name, (value, multiple) in multiples.items():
            if value == 0 or value % multiple:
                raise UnsupportedError(f"{name} is {value}; Cupola's kernels need a multiple of {multiple}")


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry: the model types that it covers, and how their configuration is read."""

    name: str
    model_types: tuple[str, ...]
    read: Callable[[Config], DecoderSpec | EncoderSpec]
    task: Task = "generate"
