"""Products with weights that are floats."""

from __future__ import annotations

from cupola.kernels.cpu.emit import LANES, Expr, Span, f32, fma, let, registers, serial, splat, tiles
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear_spec import HALVES, BlockProduct, Finish, LinearSpec
from cupola.quantize.layouts import OUT_BLOCK


def f32_product(spec: LinearSpec, _: Isa, n: Expr, spans: dict[str, Span]) -> BlockProduct:
    x, w = spans["x"], spans["w"]

    def block_product(block: Expr, finish: Finish) -> None:
        base = let(block * (spec.inputs * OUT_BLOCK))

        def tile(first: Expr, rows: int) -> None:
            sums = registers(rows * HALVES, fill=splat(f32(0.0)))
            with serial(spec.inputs) as k:
                weights = [w.load(base + k * OUT_BLOCK + half * LANES) for half in range(HALVES)]
                for r in range(rows):
                    value = splat(x.at((first + r) * spec.inputs + k))
                    for half in range(HALVES):
                        at = r * HALVES + half
                        sums.put(at, fma(value, weights[half], sums.get(at)))
            for at in range(rows * HALVES):
                finish(let(first + at // HALVES), at % HALVES, let(sums.get(at)))

        tiles(n, (6, 2, 1), tile)

    return block_product
