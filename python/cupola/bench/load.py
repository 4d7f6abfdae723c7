"""How busy others keep the machine while something is measured: a figure from a busy machine needs that beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import psutil  # type: ignore[import-untyped]


class OtherLoad:
    """Cores that processes other than ours keep busy, over a span of time.

    Args:
        pids: processes that count as ours, beside this one and those that it started.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = [pid for pid in pids if pid != os.getpid()]
        self._begin = self._reading()

    def cores(self) -> float:
        """Since the construction: 0 on a quiet machine, at most the number of cores."""
        seconds, all_busy, ours = (now - then for now, then in zip(self._reading(), self._begin, strict=True))
        return max(0.0, (all_busy - ours) / seconds) if seconds > 0 else 0.0

    def _reading(self) -> tuple[float, float, float]:
        """Time, and seconds of processor time: of everybody, and of us."""
        own = psutil.Process()
        family = {process.pid: process for process in own.children(recursive=True)}
        for pid in self._pids:
            if pid not in family and psutil.pid_exists(pid):
                family[pid] = psutil.Process(pid)
        # Of this process also the children that have ended: a process that kept a core busy was ours too.
        times = own.cpu_times()
        ours = times.user + times.system + times.children_user + times.children_system
        for process in family.values():
            try:
                used = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            ours += used.user + used.system
        everybody = psutil.cpu_times()
        busy = sum(everybody) - everybody.idle - everybody.iowait - everybody.guest - everybody.guest_nice
        return time.monotonic(), busy, ours
