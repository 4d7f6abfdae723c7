"""The other side of `torch_worker.py`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from gpu_speed.cases import CONTEXT, Case

_WORKER = Path(__file__).with_name("torch_worker.py")


class PeerError(Exception):
    """The peer is not there, or cannot do what it was asked for; the message says why."""


class Peer:
    """transformers and torch under an interpreter that may not be ours."""

    def __init__(self, python: str, shape: Mapping[str, object], device: str) -> None:
        """PeerError: it does not start."""
        try:
            self._process = subprocess.Popen(
                [python, str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )
        except OSError as error:
            raise PeerError(f"{python} cannot be run: {error.strerror}") from error
        self.name = str(self._asked({"shape": dict(shape), "context": CONTEXT, "device": device})["ready"])

    def flops(self, size: int) -> float:
        return float(cast("float", self._asked({"matrix": size})["flops"]))

    def seconds(self, case: Case) -> float:
        """As `Streams.seconds`. PeerError: it failed."""
        asked: dict[str, object] = {"kind": case.kind, "count": case.count, "steps": case.steps}
        return float(cast("float", self._asked(asked)["seconds"]))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _asked(self, value: Mapping[str, object]) -> dict[str, object]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
            while True:
                line = self._process.stdout.readline()
                if not line:
                    raise PeerError(f"the process of torch ended with status {self._process.wait()}")
                if line.startswith("{"):  # libraries print what they like
                    break
        except BrokenPipeError as error:
            raise PeerError("the process of torch has ended") from error
        answer: dict[str, object] = json.loads(line)
        if "error" in answer:
            raise PeerError(str(answer["error"]))
        return answer
