"""The sizes of an encoder: everything that distinguishes one checkpoint of a family from another."""

from __future__ import annotations

from dataclasses import dataclass

from cupola.errors import UnsupportedError
from cupola.models.sizes import check_multiples


@dataclass(frozen=True)
class EncoderSpec:
    """A transformer encoder of BERT's shape, with the norm behind each residual (Devlin et al., 2018).

    Args:
        vocab_size, hidden_size, intermediate_size, num_layers, num_heads: as in config.json.
        norm_eps: of every layer norm.
        activation: of the feed-forward network; a name of `kernels.operations.Epilogue`.
        max_positions: rows of the table of positions.
        first_position: the row of position 0.
        type_vocab_size: token types.
        prefixes: what the names of a checkpoint's tensors may begin with; a checkpoint saved with a head has one.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    norm_eps: float
    activation: str
    max_positions: int
    first_position: int
    type_vocab_size: int
    prefixes: tuple[str, ...]

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def max_context(self) -> int:
        """Tokens that the model can see."""
        return self.max_positions - self.first_position

    def check(self) -> None:
        """Refuses sizes that the kernels cannot compute with.

        Raises:
            UnsupportedError: naming the size, what it is and what it must be.
        """
        if self.num_heads == 0 or self.hidden_size % self.num_heads:
            raise UnsupportedError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_heads}"
            )
        multiples = {
            "hidden_size": (self.hidden_size, 16),
            "intermediate_size": (self.intermediate_size, 16),
            "hidden_size / num_attention_heads": (self.head_dim, 8),
        }
        check_multiples(multiples)
        if self.max_context < 1:
            raise UnsupportedError(f"max_position_embeddings is {self.max_positions}; no position is left for a token")
