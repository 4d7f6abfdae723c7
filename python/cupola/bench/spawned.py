"""A server process that the benchmark started: its port, its memory, its pauses, its end."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from random import SystemRandom
from types import TracebackType

import psutil  # type: ignore[import-untyped]

from cupola.errors import EngineError, UsageError

PORT = "{port}"
_GRACE = 10.0  # seconds from SIGTERM to SIGKILL


class SpawnedServer:
    """Starts a server's command; ends it, with everything that it started, at the end of the `with` block.

    Args:
        command: words as a shell would split them; `{port}` stands for the port, which has to be among them.

    Raises:
        UsageError: the command lacks `{port}`, cannot be read, or cannot be started.
    """

    def __init__(self, command: str) -> None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"The command `{command}` cannot be read: {error}") from error
        if not any(PORT in word for word in words):
            raise UsageError(
                f"The command `{command}` does not say where the port goes",
                hint="Write {port} there, as in `cupola serve --port {port}`.",
            )
        self.command = command
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        try:
            self._process = subprocess.Popen(
                [word.replace(PORT, str(port)) for word in words],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            self._log.close()
            raise UsageError(f"The command `{command}` cannot be started: {error.strerror}") from error

    def __enter__(self) -> SpawnedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    def check_alive(self) -> None:
        """EngineError, with the last line of its log, if the process has ended."""
        code = self._process.poll()
        if code is None:
            return
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        said = f", saying: {lines[-1].strip()}" if lines else ""
        raise EngineError(f"The server `{self.command}` ended with exit code {code}{said}")

    def suspend(self) -> None:
        """Freeze it (SIGSTOP)."""
        for process in self._family():
            process.suspend()

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        for process in self._family():
            process.resume()

    def stop(self) -> None:
        """End it. May be called twice."""
        family = list(self._family())
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()  # a frozen process takes no SIGTERM
                process.terminate()
        for process in psutil.wait_procs(family, timeout=_GRACE)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._log.close()

    def _family(self) -> Iterator[psutil.Process]:
        """The process and its descendants, as far as they live."""
        if self._process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(self.pid)
                yield from [root, *root.children(recursive=True)]


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants.

    Raises:
        EngineError: there is no such process.
    """
    try:
        root = psutil.Process(pid)
        total = int(root.memory_info().rss)
        for child in root.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
                total += child.memory_info().rss
        return total
    except psutil.NoSuchProcess as error:
        raise EngineError(f"There is no process {pid} whose memory could be measured") from error


def _free_port() -> int:
    """A free port below those that the system gives away, so that nobody gets it before the server has started."""
    for port in SystemRandom().sample(range(15_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise EngineError("There is no free port below 32000 on this machine")
