"""The parameters of a mixture of experts, and of which tensors of a checkpoint they are made.

All experts of a layer make one matrix of gates and ups and one of downs, each expert's rows below those of the one
before. Checkpoints keep experts one by one or in stacks, under older and newer names; what there is decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cupola.models.experts import ExpertNames, Experts
from cupola.quantize.formats import Format
from cupola.quantize.parameter import Parameter, Role, Source

Has = Callable[[str], bool]  # whether the checkpoint has a tensor of this name


def declare_experts(experts: Experts, hidden: int, name: str, prefix: str, has: Has) -> Iterator[Parameter]:
    """The parameters of one layer's experts and of the network beside them.

    Args:
        hidden: width of the stream.
        name: of the layer's network.
        prefix: of the layer's tensors.
    """
    names = next((n for n in experts.names if has(f"{prefix}{n.router}.weight")), experts.names[0])
    yield from _Layer(experts, names, hidden, name, prefix, has).all()


@dataclass(frozen=True)
class _Layer:
    """One layer, whose tensors have these names."""

    experts: Experts
    names: ExpertNames
    hidden: int
    name: str
    prefix: str
    has: Has

    def all(self) -> Iterator[Parameter]:
        yield from self._router()
        yield from self._products("up", 2 * self.experts.width, self.hidden)
        yield from self._products("down", self.hidden, self.experts.width)
        if self.experts.shared:
            yield from self._shared()

    def _router(self) -> Iterator[Parameter]:
        experts, tensor, count = self.experts, self.prefix + self.names.router, self.experts.routing.count
        sources = [Source(f"{tensor}.weight", (count, self.hidden))]
        if experts.routing.shared_gate:
            sources.append(Source(f"{self.prefix}{self.names.shared_gate}.weight", (1, self.hidden)))
        yield Parameter(f"{self.name}.router.weight", Role.ROUTER, tuple(sources), Format.F32)
        if experts.router_bias:
            yield self._vector("router.bias", Source(f"{tensor}.bias", (count,)))
        if experts.selection_bias:
            yield self._vector("selection_bias", Source(self.prefix + self.names.selection_bias, (count,)))

    def _products(self, part: str, rows: int, inputs: int) -> Iterator[Parameter]:
        """All experts' matrices of one kind, and their biases."""
        name = f"{self.name}.{part}"
        matrices = tuple(self._matrices(part, rows, inputs))
        yield Parameter(f"{name}.weight", Role.LINEAR, matrices, Format.F32)
        if self.experts.biases:
            yield Parameter(f"{name}.bias", Role.VECTOR, tuple(self._biases(part, rows)), Format.F32)

    def _matrices(self, part: str, rows: int, inputs: int) -> Iterator[Source]:
        count, up = self.experts.routing.count, part == "up"
        each = [self.prefix + tensor for tensor in (self.names.each[:2] if up else self.names.each[2:])]
        stack = self.prefix + self.names.stacked[0 if up else 1]
        split = [self.prefix + tensor for tensor in (self.names.split[:2] if up else self.names.split[2:])]
        own = rows // len(split)
        for expert in range(count):
            if self.has(stack):
                turned = self.names.transposed
                shape = (count, inputs, rows) if turned else (count, rows, inputs)
                yield Source(stack, shape, self._order(up), transposed=turned, index=expert)
            elif self.has(f"{stack}.weight"):
                yield Source(f"{stack}.weight", (count, rows, inputs), self._order(up), index=expert)
            elif self.has(f"{split[0]}.weight"):
                yield from (Source(f"{tensor}.weight", (count, own, inputs), index=expert) for tensor in split)
            else:
                yield from (Source(f"{tensor.format(expert)}.weight", (own, inputs)) for tensor in each)

    def _biases(self, part: str, rows: int) -> Iterator[Source]:
        count, up = self.experts.routing.count, part == "up"
        stack = f"{self.prefix}{self.names.stacked[0 if up else 1]}_bias"
        split = [f"{self.prefix}{tensor}.bias" for tensor in (self.names.split[:2] if up else self.names.split[2:])]
        for expert in range(count):
            if self.has(split[0]):
                yield from (Source(tensor, (count, rows // len(split)), index=expert) for tensor in split)
            else:
                yield Source(stack, (count, rows), self._order(up), index=expert)

    def _order(self, up: bool) -> tuple[int, ...] | None:
        """The rows of a stack that are gates, then those that are ups."""
        if not (up and self.names.interleaved):
            return None
        return (*range(0, 2 * self.experts.width, 2), *range(1, 2 * self.experts.width, 2))

    def _shared(self) -> Iterator[Parameter]:
        names, width = self.names, self.experts.shared
        own = 2 * width // len(names.shared)
        up = tuple(Source(f"{self.prefix}{tensor}.weight", (own, self.hidden)) for tensor in names.shared)
        yield Parameter(f"{self.name}.shared.up.weight", Role.LINEAR, up, Format.F32)
        down = Source(f"{self.prefix}{names.shared_down}.weight", (self.hidden, width))
        yield Parameter(f"{self.name}.shared.down.weight", Role.LINEAR, (down,), Format.F32)

    def _vector(self, name: str, source: Source) -> Parameter:
        return Parameter(f"{self.name}.{name}", Role.VECTOR, (source,), Format.F32)
