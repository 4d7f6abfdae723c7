"""Integer products of a group, two rows at a time, for processors with an instruction for matrices of bytes.

Such an instruction multiplies two rows of eight values by two outputs of eight values, which is twice what a dot
product of four does. Packed weights have four inputs of an output together; two such steps are interleaved to eight.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.emit import Expr, Span, bits, i32, let, splat
from cupola.kernels.cpu.isa import Isa

_LOW, _HIGH = (0, 8, 1, 9, 2, 10, 3, 11), (4, 12, 5, 13, 6, 14, 7, 15)  # outputs 0 to 3 and 4 to 7 of two steps
# Of two vectors of 2 x 2 sums for two pairs of outputs each: those of the first row, and of the second.
_FIRST, _SECOND = (0, 1, 4, 5, 8, 9, 12, 13), (2, 3, 6, 7, 10, 11, 14, 15)


@dataclass(frozen=True)
class Octet:
    """Eight neighbouring inputs.

    Args:
        first: the first of them in the group.
        steps: for each part of the outputs the weights of four inputs, and of the next four: int8 or codes.
    """

    first: int
    steps: tuple[tuple[Expr, Expr], ...]


def dots_by_pairs(isa: Isa, q: Span, rows: list[Expr], octets: Iterable[Octet]) -> list[list[Expr]]:
    """Dot products of a group [row][part]; an odd row at the end is multiplied twice.

    Args:
        q: int8 activations.
        rows: where each row's integers of the group begin in it.
        octets: all inputs of the group.
    """
    assert isa.add_matrices is not None
    pairs = [(rows[i], rows[min(i + 1, len(rows) - 1)]) for i in range(0, len(rows), 2)]
    sums: dict[tuple[int, int, int], Expr] = {}
    for octet in octets:
        values = [_two_rows(q, pair, octet.first) for pair in pairs]
        for part, steps in enumerate(octet.steps):
            words = [bits(step, f"int32x{isa.lanes}") for step in steps]
            for side, order in enumerate((_LOW, _HIGH)):
                weights = bits(let(tirx.Shuffle(words, list(order))), f"int8x{isa.bytes}")
                for i, value in enumerate(values):
                    before = sums.get((i, part, side), splat(i32(0), isa.lanes))
                    sums[i, part, side] = isa.add_matrices(before, value, weights)
    parts = sorted({part for _, part, _ in sums})
    found = [
        [let(tirx.Shuffle([sums[i, part, 0], sums[i, part, 1]], list(order))) for part in parts]
        for i in range(len(pairs))
        for order in (_FIRST, _SECOND)
    ]
    return found[: len(rows)]


def _two_rows(q: Span, pair: tuple[Expr, Expr], first: int) -> Expr:
    """Eight activations of one row and eight of another, twice."""
    one, other = (bits(q.load(row + first, 8), "int64") for row in pair)
    return bits(let(tirx.Shuffle([one, other, one, other], [0, 1, 2, 3])), "int8x32")
