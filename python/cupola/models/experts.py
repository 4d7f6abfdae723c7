"""Mixtures of experts: the network of a layer that has many, of which every row uses a few (Shazeer et al., 2017).

    scores = router(x);  experts and weights = route(scores)
    y = sum over a row's experts of weight * down_e(function(gate_e x) * up_e x)   [+ shared(x), which every row uses]

Plain values, as in `spec.py`: what a family says of its experts, and where its checkpoints keep them.
"""

from __future__ import annotations

from dataclasses import dataclass

from cupola.kernels.routing import Routing
from cupola.models.sizes import check_multiples


@dataclass(frozen=True)
class ExpertNames:
    """Names of tensors in a layer, without `.weight` and `.bias`.

    Experts are kept one by one, or in stacks [experts, rows, inputs], with `.weight` behind the name or without; the
    checkpoint shows which.

    Args:
        router: the scores' matrix.
        selection_bias: what is added to scores for the choice alone; a whole name.
        each: gate, up and down of one expert; {} is its number.
        stacked: gate and up of one expert below the other, then down.
        split: gate, up and down.
        interleaved: rows of gate and up in a stack lie in turn: gate 0, up 0, gate 1, ...
        transposed: stacks without `.weight` lie as [experts, inputs, rows].
        shared: gate and up of the network that every row uses, or one tensor with both; `shared_down`: down.
        shared_gate: the row that its weight is computed with.
    """

    router: str = "mlp.gate"
    selection_bias: str = "mlp.gate.e_score_correction_bias"
    each: tuple[str, str, str] = ("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj", "mlp.experts.{}.down_proj")
    stacked: tuple[str, str] = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
    split: tuple[str, str, str] = ("mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj")
    interleaved: bool = False
    transposed: bool = False
    shared: tuple[str, ...] = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj")
    shared_down: str = "mlp.shared_expert.down_proj"
    shared_gate: str = "mlp.shared_expert_gate"


@dataclass(frozen=True)
class Experts:
    """The experts of one layer; they are gated, with the decoder's activation.

    Args:
        width: of one expert, between its products.
        routing: who goes where, and how much it counts.
        shared: width of the network that every row goes through beside its experts; 0: there is none.
        router_bias: the scores have a vector that is added.
        biases: the products of experts have vectors that are added.
        selection_bias: scores have a vector that is added for the choice alone.
        names: where checkpoints keep it all; the first of these whose router the checkpoint has.
    """

    width: int
    routing: Routing
    shared: int = 0
    router_bias: bool = False
    biases: bool = False
    selection_bias: bool = False
    names: tuple[ExpertNames, ...] = (ExpertNames(),)

    def check(self) -> None:
        """Refuses what no kernel can compute with. Raises UnsupportedError."""
        sizes = {"the width of an expert": (self.width, 16)}
        if self.shared:
            sizes["the width of the shared expert"] = (self.shared, 16)
        check_multiples(sizes)
        self.routing.check()
