"""The function `sample` of libraries for GPUs: rows of logits in, tokens out, so that the rows stay there."""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.gpu.products import tensor
from cupola.kernels.gpu.sample_row import KNOWN, SETTINGS, Rows
from cupola.kernels.gpu.sample_search import PASSES, PIVOTS, STATE
from cupola.kernels.gpu.sampling import sample

# Extents of the arguments behind the logits; kernels/gpu/sampling.py says what they are.
EXTENTS = {"by_count": "s", "by_mass": "q", "reported": "l", "masks": "w", "edits": "e", "places": "t"}


class _Sampler(nn.Module):
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def sample(
        self,
        logits: nn.Tensor,
        settings: nn.Tensor,
        by_count: nn.Tensor,
        by_mass: nn.Tensor,
        reported: nn.Tensor,
        masks: nn.Tensor,
        edits: nn.Tensor,
        places: nn.Tensor,
    ) -> nn.Tensor:
        m, t, parts = logits.shape[0], places.shape[0], self._rows.parts
        outs = [
            tensor("int32", m, 1 + 2 * t),
            tensor("float32", m, self._rows.stride),
            tensor("float32", m, parts, KNOWN),
            tensor("float32", m, KNOWN),
            tensor("int32", m, 2),
            tensor("float32", m, parts, 2),
            tensor("float32", 2, m, parts, PIVOTS),
            tensor("int32", PASSES + 1, m, STATE),
            tensor("float32", m),
            tensor("float32", t, m, parts),
            tensor("int32", t, m, parts),
            tensor("float32", m, parts),
        ]
        args = [logits, settings, by_count, by_mass, reported, masks, edits, places]
        return op.tensor_ir_op(sample(self._rows), "sample_rows", args, outs)[0]


def sample_module(rows: Rows, name: str) -> tvm.IRModule:
    """A module with nothing but the function `name`."""
    m = tirx.Var("m", "int64")
    signature: dict[str, object] = {
        "logits": nn.spec.Tensor([m, rows.stride], "float32"),
        "settings": nn.spec.Tensor([m * SETTINGS], "int32"),
        **{argument: nn.spec.Tensor([extent], "int32") for argument, extent in EXTENTS.items()},
        "$": {"param_mode": "none", "effect_mode": "none"},
    }
    module, _ = _Sampler(rows).export_tvm({name: signature})
    return module
