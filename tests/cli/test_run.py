"""`cupola run`: one answer, or a conversation at a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from command import CUPOLA, cupola
from typer.testing import CliRunner

from cupola.cli.main import app
from cupola.engine.backends.scripted import EOS_ID, byte_tokenizer
from cupola.errors import CupolaError
from oracle import Oracle

LETTERS = Oracle(ord("a"), 26, EOS_ID)


def answer(question: str, max_tokens: int, before: str = "") -> str:
    """What the scripted model answers to a question in a chat; `before` is the rendered conversation so far."""
    prompt = f"{before}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return bytes(LETTERS.generate(byte_tokenizer().encode(prompt), max_tokens, [EOS_ID])[0]).decode()


def test_one_prompt_is_answered_on_standard_output() -> None:
    outcome = cupola("run", "scripted", "--prompt", "Hello", "--max-tokens", "20", "--temperature", "0")
    assert (outcome.code, outcome.out, outcome.err) == (0, answer("Hello", 20) + "\n", "")


def test_standard_input_may_be_the_prompt() -> None:
    outcome = cupola("run", "scripted", "--max-tokens", "9", "--temperature", "0", stdin="Hello\nworld")
    assert outcome.out == answer("Hello\nworld", 9) + "\n"


def test_an_empty_prompt_is_a_usage_error() -> None:
    outcome = cupola("run", "scripted", stdin="\n")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: The prompt is empty\n\nhint: ")


def test_the_system_message() -> None:
    outcome = cupola(
        "run", "scripted", "-p", "Hello", "--max-tokens", "9", "--temperature", "0", "--system", "Be brief"
    )
    assert outcome.out == answer("Hello", 9, "<|im_start|>system\nBe brief<|im_end|>\n") + "\n"


def test_a_seed_repeats_an_answer() -> None:
    arguments = ("run", "scripted", "-p", "x", "--max-tokens", "300", "--temperature", "2", "--seed")
    first = cupola(*arguments, "5").out
    assert cupola(*arguments, "5").out == first
    assert cupola(*arguments, "6").out != first


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--temperature", "3", "`temperature` is 3.0; allowed: a number from 0 to 2"),
        ("--top-p", "0", "`top_p` is 0.0"),
        ("--max-tokens", "-1", "`max_tokens` is -1"),
        ("--max-tokens", "5000", "the context holds 4096"),
        ("--max-context", "5000", "`max_context` is 5000; allowed: 1 to 4096"),
        ("--kv-cache-memory", "much", "`--kv-cache-memory` is `much`"),
    ],
)
def test_values_out_of_range_are_refused(option: str, value: str, message: str) -> None:
    result = CliRunner().invoke(app, ["run", "scripted", "-p", "x", option, value])
    assert isinstance(result.exception, CupolaError)
    assert message in str(result.exception)


class Terminal:
    """A `cupola run` at a terminal of its own."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes]) -> None:
        self._fd = fd
        self._pending = ""
        self.process = process

    def type(self, line: str) -> None:
        os.write(self._fd, line.encode())

    def read_until(self, text: str) -> str:
        """Everything up to and including `text`."""
        while text not in self._pending:
            self._pending += os.read(self._fd, 4096).decode().replace("\r\n", "\n")
        before, found, self._pending = self._pending.partition(text)
        return before + found

    def interrupt_until(self, text: str) -> str:
        """Ctrl-C until `text` comes: readline misses one that arrives between its prompt and its wait for a key."""
        while text not in self._pending:
            self.process.send_signal(signal.SIGINT)
            if select.select([self._fd], [], [], 5.0)[0]:
                self._pending += os.read(self._fd, 4096).decode().replace("\r\n", "\n")
        return self.read_until(text)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    reader, end = pty.openpty()
    settings = termios.tcgetattr(end)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(end, termios.TCSANOW, settings)
    env = {**os.environ, "TERM": "dumb"}
    with subprocess.Popen(
        [*CUPOLA, "run", *arguments], stdin=end, stdout=end, stderr=end, env=env, start_new_session=True
    ) as process:
        os.close(end)
        try:
            yield Terminal(reader, process)
        finally:
            process.kill()
            os.close(reader)


def test_a_conversation() -> None:
    with terminal("scripted", "--max-tokens", "12", "--temperature", "0") as chat:
        assert "context of 4096 tokens" in chat.read_until(">>> ")
        chat.type("Hello\n")
        first = answer("Hello", 12)
        assert first in chat.read_until(">>> ")
        chat.type("And now?\n")
        before = f"<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n{first}<|im_end|>\n"
        assert answer("And now?", 12, before) in chat.read_until(">>> ")
        chat.type("/stats\n")
        assert "12 tokens" in chat.read_until(">>> ")
        chat.type("/reset\n")
        chat.read_until(">>> ")
        chat.type("Hello\n")
        assert first in chat.read_until(">>> ")
        chat.type("/help\n")
        assert "/reset" in chat.read_until(">>> ")
        chat.type("/fly\n")
        assert "no command /fly" in chat.read_until(">>> ")
        chat.type("/exit\n")
        assert chat.process.wait(100) == 0


def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on() -> None:
    with terminal("scripted:step_us=5000", "--temperature", "0") as chat:
        chat.read_until(">>> ")
        chat.type("Hello\n")
        chat.read_until(answer("Hello", 5))
        chat.process.send_signal(signal.SIGINT)
        assert "(stopped)" in chat.read_until(">>> ")
        for _ in range(1000):  # the step that runs still holds the pages
            chat.type("/stats\n")
            if " 0 of 256 KV pages in use" in chat.read_until(">>> "):
                break
        else:
            raise AssertionError("the pages of the stopped answer were not given back")
        assert "/exit leaves" in chat.interrupt_until("/exit leaves")
        chat.read_until(">>> ")  # before it the terminal would take the key for its own end of file
        chat.type("\x04")
        assert chat.process.wait(100) == 0


def test_a_conversation_that_outgrows_the_context_can_begin_anew() -> None:
    with terminal("scripted", "--max-tokens", "5", "--max-context", "64") as chat:
        chat.read_until(">>> ")
        chat.type("x" * 60 + "\n")
        assert "context holds 64" in chat.read_until(">>> ")
        chat.type("short\n")
        assert "context" not in chat.read_until(">>> ")
