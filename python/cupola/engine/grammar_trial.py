"""A process in which large grammars are tried before the engine's own process compiles them.

llguidance bounds what most grammars cost, but not all: a schema of 20 kB can take it minutes, and one whose references
follow each other a thousand deep overflows its stack. Neither can be stopped or survived from within, so it happens
here: this file is both ends of a pipe, the engine's (`GrammarTrial`) and that of the process (`main`).
"""

from __future__ import annotations

import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from cupola.engine.native_grammar import GrammarTokenizer
from cupola.text.vocabulary import Vocabulary

TRIAL_SECONDS = 2.0
"""Longest trial. Compiling takes as long once more: both together stay within the patience of who waits."""

_START_SECONDS = 30.0
_STACK_BYTES = 1 << 20  # far below the stack of the thread that compiles later


class GrammarTrial:
    """The engine's end. The process starts with the first trial, and again after one that it did not survive.

    For one thread at a time.

    Args:
        vocabulary: what grammars are compiled for.
        eos_ids: its end-of-sequence ids.
    """

    def __init__(self, vocabulary: Vocabulary, eos_ids: Sequence[int]) -> None:
        self._setup = (vocabulary, tuple(eos_ids))
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, kind: str, text: str) -> None:
        """Compile a grammar there.

        Raises:
            ValueError: it cannot be compiled, or not within TRIAL_SECONDS; the message is the reason.
        """
        process = self._process or self._start()
        try:
            self._send(process, (kind, text))
            reason = self._receive(process, TRIAL_SECONDS)
        except TimeoutError:
            self.close()
            raise ValueError(f"it takes more than {TRIAL_SECONDS:.0f} s to compile") from None
        except (EOFError, OSError):
            self.close()
            raise ValueError("it is too deeply nested, or takes too much memory") from None
        if reason is not None:
            raise ValueError(reason)

    def close(self) -> None:
        """End the process. The next trial starts another one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", __name__]
        # Its own words go nowhere: a stack that overflows on purpose is no news for a server's log.
        process = self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._send(process, self._setup)
        self._receive(process, _START_SECONDS)
        return process

    @staticmethod
    def _send(process: subprocess.Popen[bytes], value: object) -> None:
        assert process.stdin is not None
        pickle.dump(value, process.stdin)
        process.stdin.flush()

    @staticmethod
    def _receive(process: subprocess.Popen[bytes], seconds: float) -> str | None:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], seconds)[0]:
            raise TimeoutError
        answer: str | None = pickle.load(process.stdout)
        return answer


def main() -> None:
    """The process's end: one answer for each grammar, until the pipe ends."""
    tokenizer = GrammarTokenizer(*pickle.load(sys.stdin.buffer))
    threading.stack_size(_STACK_BYTES)
    _answer(None)
    while True:
        try:
            kind, text = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        # Should the engine be gone before the answer, nobody else ends a process that computes for ever.
        signal.alarm(int(2 * TRIAL_SECONDS) + 1)
        thread = threading.Thread(target=_try, args=(tokenizer, kind, text))
        thread.start()
        thread.join()
        signal.alarm(0)


def _try(tokenizer: GrammarTokenizer, kind: str, text: str) -> None:
    try:
        tokenizer.compile(kind, text)
    except ValueError as error:
        _answer(str(error))
    else:
        _answer(None)


def _answer(reason: str | None) -> None:
    pickle.dump(reason, sys.stdout.buffer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
