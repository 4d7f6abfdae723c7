"""Schemes: which format a matrix is stored in, by its role in the model and by what the checkpoint holds.

Owns that choice alone; how a format is rounded and packed is the business of `rounding` and `layouts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from cupola.quantize.formats import GROUP, Format


class HeldTensor(Protocol):
    """What is known of a tensor of the checkpoint; `weights.checkpoint.TensorInfo` is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def format(self) -> Format: ...


@dataclass(frozen=True, slots=True)
class Scheme:
    """A named choice of formats: one for linear layers, one for the token table and the output matrix."""

    name: str
    linear: Format
    embedding: Format

    @property
    def keeps_floats(self) -> bool:
        """True where the scheme promises full precision, so that quantized tensors are widened too."""
        return self.linear is Format.F32


SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        scheme.name: scheme
        for scheme in (
            Scheme("f32", Format.F32, Format.F32),
            Scheme("f16", Format.F16, Format.F16),
            Scheme("bf16", Format.BF16, Format.BF16),
            Scheme("q16", Format.Q16, Format.Q16),
            Scheme("q8", Format.Q8, Format.Q8),
            Scheme("q4", Format.Q4, Format.Q8),
            Scheme("q3", Format.Q3, Format.Q4),
        )
    }
)


def choose_format(role: str, sources: Sequence[HeldTensor], scheme: Scheme) -> Format:
    """The format of one parameter that is made of `sources`, stacked along their outputs.

    `role` is a `parameter.Role`: "vector", "linear", "embedding", "table" or "router".

    - A vector is F32.
    - A router is of floats: F32, F16 or BF16 under the schemes of these names, F16 under those of integers.
    - A table of plain rows is F32 or F16; its rows are copied, so that fewer bits would gain no time.
    - `f32` widens everything.
    - Sources that the checkpoint holds quantized in one format keep that format, whatever the scheme.
    - Q4 and Q4S together become Q4, without loss.
    - Sources of other different formats become floats where the scheme stores floats, else Q8: the 8-bit ones and Q4S
      keep their integers, Q4 and floats are rounded to 8 bits, which loses far less than 8-bit ones would in 4 bits.
    - Float sources follow the scheme, but a matrix whose inputs are not a multiple of 32 cannot be grouped: F32.
    """
    if role == "vector" or scheme.keeps_floats:
        return Format.F32
    if role == "table":
        return Format.F16
    if role == "router":
        return Format.F16 if scheme.linear.integer else scheme.linear
    wanted = scheme.embedding if role == "embedding" else scheme.linear
    formats = {s.format for s in sources}
    if formats == {Format.F32}:
        chosen = wanted
    elif len(formats) == 1:
        chosen = formats.pop()
    elif formats == {Format.Q4, Format.Q4S}:
        chosen = Format.Q4
    else:
        chosen = Format.Q8 if wanted.grouped else wanted
    divisible = all(len(s.shape) >= 2 and s.shape[-1] % GROUP == 0 for s in sources)
    return chosen if divisible or not chosen.integer else Format.F32
