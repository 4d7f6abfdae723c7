"""A real `cupola serve` in a process of its own, for tests of what only a process shows: signals, sockets, clients."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import TracebackType

import httpx

# Far more than anything here takes: a machine may be slow and busy, and only a failing test waits so long.
_PATIENCE_SECONDS = 100.0


class ServerProcess:
    """Starts the server on a free port and waits until it is ready; ends it with the `with` block.

    Args:
        model: what `cupola serve` shall serve.
        options: further words of the command line.
    """

    def __init__(self, model: str, *options: str) -> None:
        command = [sys.executable, "-m", "cupola", "serve", model, "--port", "0", *options]
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (closed by __exit__)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self.url = self._read_url()
        self.client = httpx.Client(base_url=self.url, timeout=_PATIENCE_SECONDS)
        self.wait_for(lambda: self.client.get("/ready").status_code == 200)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.process.kill()
        self.process.communicate()
        self._errors.close()

    def metric(self, name: str) -> float:
        """The value of a metric, of all models together."""
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.client.get("/metrics").text, re.MULTILINE)
        assert values, f"there is no metric {name}"
        return sum(map(float, values))

    def is_idle(self) -> bool:
        """Nobody runs, nobody waits, and every page is free."""
        return (
            self.metric("cupola:num_requests_running") == 0
            and self.metric("cupola:num_requests_waiting") == 0
            and self.metric("cupola:kv_pages_free") == self.metric("cupola:kv_pages")
        )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Waits for the process to end by itself: its exit code, and what it wrote to standard error."""
        self.process.communicate(timeout=_PATIENCE_SECONDS)
        self._errors.seek(0)
        return self.process.returncode, self._errors.read()

    @staticmethod
    def wait_for(condition: Callable[[], bool]) -> None:
        """Looks again and again until the condition holds."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"still not so after {_PATIENCE_SECONDS} s"
            time.sleep(0.01)

    def _read_url(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            match = re.fullmatch(r"\s+API base\s+(http://\S+)/v1\n", line)
            if match:
                return match[1]
        raise AssertionError(f"the server did not start: {self.end()}")
