"""Which tiles of matrix units a product takes, by its format and by how many rows there are.

    few rows     128 outputs, 32 rows: the weights' bandwidth decides; several blocks of threads on a multiprocessor
    some         128 outputs, 128 rows: two blocks of four warps on a multiprocessor
    many         256 outputs, 128 rows: the least traffic a multiplication, one block on a multiprocessor

A warp of the larger ones has 64 x 64 sums, for which it reads the fewest bytes, and 32 outputs by 128 rows where
weights take many instructions to unpack: then no two warps unpack the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cupola.kernels.gpu.linear_matrix import MatrixTile, Shape
from cupola.kernels.gpu.matrix_unit import MatrixUnit
from cupola.kernels.gpu.matrix_weights import supported
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import GROUP, Format

SHARED_BYTES = 101376  # of a block, at most: 99 KiB, what sm_89 has; others have more
PROCESSORS = 132  # multiprocessors that want to be busy: an H200's
BLOCKS = 2 * PROCESSORS  # of threads, that splitting the inputs makes at most
LEAST_GROUPS = 8  # of inputs, of a part of them
MOST_SPLITS = (8, 4)  # of tiles of few rows and of some: sums of many rows are more to write than weights are to read
DEEP, DEEP_BYTES = (
    8,
    77824,
)  # stages of tiles of few rows, where they take no more; a power of two, which divides quickly
WAVES = 2  # of large tiles, from which on their last one does not matter much

FEW = Shape(across=4, down=1, blocks=2, pairs=2, groups=2)
WIDE_SOME = Shape(across=2, down=2, blocks=4, pairs=4)
WIDE_MANY = Shape(across=4, down=2, blocks=4, pairs=4)
TALL_SOME = Shape(across=4, down=1, blocks=2, pairs=8)
TALL_MANY = Shape(across=8, down=1, blocks=2, pairs=8)
# Formats of which two warps may unpack the same weights, by the type of activations.
_FLOATS = (Format.F16, Format.BF16)
_EASY = {"float16": (*_FLOATS, Format.Q8, Format.Q4, Format.Q4S), "bfloat16": _FLOATS}


@dataclass(frozen=True)
class Shapes:
    """The tiles of one matrix."""

    matrix: Packed
    unit: MatrixUnit

    @classmethod
    def of(cls, matrix: Packed, unit: MatrixUnit | None, x: str) -> Shapes | None:
        """None: the device has no matrix units, or they cannot multiply these."""
        if unit is None or not supported(matrix) or x == "float32":
            return None
        return cls(matrix, unit)

    @property
    def some(self) -> int:
        """Rows up to which the second one does: as long as large ones would leave multiprocessors idle."""
        many = self.tiles(1)[2]
        across = -(-self.matrix.blocks // many.blocks)
        return max(1, -(-WAVES * PROCESSORS // across) - 1) * many.shape.rows

    def tiles(self, halves: int) -> tuple[MatrixTile, MatrixTile, MatrixTile]:
        """For few rows, for some, and for many."""
        wide = self.matrix.format in _EASY[self.unit.dtype]
        shapes = (FEW, WIDE_SOME, WIDE_MANY) if wide else (FEW, TALL_SOME, TALL_MANY)
        few, some, many = (self._tile(shape, halves) for shape in shapes)
        return few, some, many

    def splits(self, tile: MatrixTile) -> int:
        """Parts that the inputs fall into, where tiles of few rows, or one tile of some, leave multiprocessors idle."""
        across, groups = -(-self.matrix.blocks // tile.blocks), self.matrix.inputs // GROUP
        most = MOST_SPLITS[0 if tile.shape.rows == FEW.rows else 1]
        fits = (
            splits
            for splits in (8, 4, 2)
            if splits <= most
            and across * splits <= BLOCKS
            and groups % (splits * tile.shape.groups) == 0
            and groups // splits >= LEAST_GROUPS
        )
        return next(fits, 1)

    @property
    def partial_rows(self) -> int:
        """Rows of partial sums that there may be."""
        tiles = self.tiles(1)[:2]
        return max(tile.shape.rows * self.splits(tile) if self.splits(tile) > 1 else 0 for tile in tiles)

    def _tile(self, shape: Shape, halves: int) -> MatrixTile:
        """The tile, with as many stages as fit."""
        groups = shape.groups
        while self.matrix.inputs // GROUP % groups:
            groups //= 2
        tile = MatrixTile(self.matrix, self.unit, halves, replace(shape, groups=groups))
        if shape is FEW and tile.shared_bytes * DEEP // shape.stages <= DEEP_BYTES:
            tile = replace(tile, shape=replace(tile.shape, stages=DEEP))
        while tile.shared_bytes > SHARED_BYTES:
            tile = replace(tile, shape=_smaller(tile.shape))
        return tile


def _smaller(shape: Shape) -> Shape:
    if shape.groups > 1:
        return replace(shape, groups=shape.groups // 2)
    if shape.stages > 3:
        return replace(shape, stages=shape.stages - 1)
    return replace(shape, across=shape.across // 2)
