"""Who goes to which experts: what families say of it, and kernels compute by.

Plain values, without TVM: a configuration is read where nothing is compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cupola.errors import UnsupportedError


@dataclass(frozen=True)
class Routing:
    """How a row's scores, one an expert, choose its experts and become their weights.

    With s the scores of a row [count], in this order:
        v = softmax(s) over all experts, or sigmoid(s) of each;
        c = v + selection bias if there is one, else v: what the choice goes by;
        of `groups` groups of neighbours, the `groups_used` remain whose `group_best` largest c add up to most;
        of the experts that remain, the `used` with the largest c are chosen, the largest first;
        weights w = v of the chosen ones; divided by their sum if renormalised; times scale.
    Of equal ones, the first is taken. The softmax of the chosen scores alone is "softmax", renormalised. Numbers that
    are not finite give some experts, each below `count`, and some weights.

    Args:
        count, used: experts in all, and of one row.
        function: of the scores.
        groups, groups_used, group_best: DeepSeek's choice; 1, 1, 1: every expert can be chosen.
        shared_gate: behind the experts' scores stands one more, g; sigmoid(g) is the weight of the shared network.
    """

    count: int
    used: int
    function: Literal["softmax", "sigmoid"] = "softmax"
    renormalised: bool = True
    scale: float = 1.0
    groups: int = 1
    groups_used: int = 1
    group_best: int = 1
    shared_gate: bool = False

    @property
    def scores(self) -> int:
        """How many a row has."""
        return self.count + self.shared_gate

    def check(self) -> None:
        """Raises UnsupportedError unless a row can choose so many experts."""
        whole = self.groups >= 1 and self.count % self.groups == 0
        size = self.count // self.groups if whole else 0
        if not (whole and 1 <= self.groups_used <= self.groups and 1 <= self.group_best <= size):
            raise UnsupportedError(
                f"{self.count} experts in {self.groups} groups, of which {self.groups_used} are used, are no routing",
                hint="groups are of one size, and at least one of them is used",
            )
        if not 1 <= self.used <= size * self.groups_used:
            raise UnsupportedError(
                f"a row uses {self.used} experts of {size * self.groups_used} that it can choose from",
                hint="it must be at least one, and at most all of them",
            )
