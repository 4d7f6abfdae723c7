"""The heads of attention, which kernels of every device have in common."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeadShape:
    """Attention heads: `queries` heads share `keys` key-value heads, evenly."""

    queries: int
    keys: int
    dim: int

    @property
    def group(self) -> int:
        """Query heads to a key-value head."""
        return self.queries // self.keys
