"""The sizes of latent attention, which `latent_operations` explains: what families say, and kernels compute by.

Plain values, without TVM: a configuration is read where nothing is compiled.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LatentShape:
    """Sizes of latent attention.

    Args:
        heads: query heads.
        latent: components of c.
        rotary: components of the shared key k, and of a query's part r.
        plain: components of a query's part q, which does not rotate.
        value: components of what a head sees, once expanded.
    """

    heads: int
    latent: int
    rotary: int
    plain: int
    value: int

    @property
    def stored(self) -> int:
        """Components that pages hold of a token."""
        return self.latent + self.rotary

    @property
    def query(self) -> int:
        """Components of one head's query: q, then r."""
        return self.plain + self.rotary
