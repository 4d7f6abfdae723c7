"""The conversation in the terminal: reads lines, prints answers as they come. Knows the engine, no options."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from cupola.engine.engine import Engine
from cupola.engine.output import TextDelta
from cupola.engine.request import FinishReason, SamplingParams
from cupola.errors import RequestError

HELP = """\
/reset   forget the conversation
/stats   numbers of the last answer and of the engine
/help    this list
/exit    leave (or Ctrl-D)
Ctrl-C   stop the answer"""

# What a terminal would take for a command: all control characters but tab and line feed.
_CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and how it came.

    Args:
        seconds_to_first: from the question to the first token.
        seconds: from the first token to the last.
        stopped: the user stopped it.
    """

    text: str
    prompt_tokens: int
    tokens: int
    seconds_to_first: float
    seconds: float
    stopped: bool
    cut: bool

    def describe(self) -> str:
        """The numbers as one line."""
        speed = f"{(self.tokens - 1) / self.seconds:.1f} tokens/s" if self.tokens > 1 and self.seconds > 0 else ""
        parts = [f"{self.tokens} tokens", speed, f"first token after {self.seconds_to_first:.2f} s"]
        if self.prompt_tokens:
            parts.insert(0, f"prompt of {self.prompt_tokens} tokens")
        return ", ".join(part for part in parts if part)


def answer_once(engine: Engine, prompt: str, params: SamplingParams, system: str | None) -> None:
    """Print the answer to one prompt. A model without a chat template continues the prompt."""
    if engine.chat_template is None:
        deltas = engine.stream(prompt, params)
    else:
        deltas = engine.stream_chat([*_system(system), {"role": "user", "content": prompt}], params)
    for delta in deltas:
        _write(delta.text)
    print()


def chat(engine: Engine, params: SamplingParams, system: str | None) -> None:
    """Read lines and answer them until the user leaves."""
    if engine.chat_template is None:
        raise RequestError(
            f"Model `{engine.model_name}` has no chat template",
            hint='Let it continue a text instead: `cupola run MODEL -p "Once upon a time"`.',
        )
    _enable_line_editing()
    print(f"{engine.model_name}, context of {engine.config.max_context} tokens; /help lists the commands")
    Conversation(engine, params, system).run()


class Conversation:
    """The messages so far, and the commands that act on them."""

    def __init__(self, engine: Engine, params: SamplingParams, system: str | None) -> None:
        self._engine = engine
        self._params = params
        self._system = system
        self._messages: list[dict[str, str]] = []
        self._last: Answer | None = None
        self._commands: dict[str, Callable[[], None]] = {
            "/reset": self._reset,
            "/stats": self._stats,
            "/help": lambda: print(HELP),
        }

    def run(self) -> None:
        """Until /exit or the end of the input."""
        for line in _lines():
            if line in ("/exit", "/quit", "/bye"):
                return
            if line in self._commands:
                self._commands[line]()
            elif line.startswith("/") and " " not in line and "/" not in line[1:]:
                print(f"There is no command {line}; /help lists them")
            elif line:
                # Ctrl-C in the moment before an answer begins or after it has ended changes nothing.
                with suppress(KeyboardInterrupt):
                    self._answer(line)

    def _answer(self, question: str) -> None:
        messages = [*self._messages, {"role": "user", "content": question}]
        deltas = self._engine.stream_chat([*_system(self._system), *messages], self._params)
        try:
            answer = _print_answer(deltas)
        except RequestError as error:
            # For example a conversation that has outgrown the context: the question is not kept.
            print(f"{error.message.removesuffix('.')}; /reset begins a new conversation")
            return
        self._messages = [*messages, {"role": "assistant", "content": answer.text}]
        self._last = answer
        if answer.cut:
            print("(the answer was cut at the most tokens allowed)")

    def _reset(self) -> None:
        self._messages.clear()
        print("The conversation is forgotten")

    def _stats(self) -> None:
        print(f"last answer: {self._last.describe() if self._last else 'none yet'}")
        stats = self._engine.stats()
        used = stats.pages_total - stats.pages_free
        print(
            f"engine: {stats.steps} steps, {stats.prompt_tokens} prompt and {stats.generated_tokens} generated tokens, "
            f"{used} of {stats.pages_total} KV pages in use"
        )


def _print_answer(deltas: Iterator[TextDelta]) -> Answer:
    """Print an answer as it comes; Ctrl-C ends it, and keeps what is there."""
    text: list[str] = []
    prompt_tokens = tokens = 0
    started = first = time.perf_counter()
    stopped = cut = False
    try:
        for delta in deltas:
            if not tokens and delta.token_ids:
                first = time.perf_counter()
            tokens += len(delta.token_ids)
            text.append(delta.text)
            _write(delta.text)
            if delta.usage is not None:
                prompt_tokens, tokens = delta.usage.prompt_tokens, delta.usage.completion_tokens
                cut = delta.finish_reason is FinishReason.LENGTH
    except KeyboardInterrupt:
        stopped = True
    print(" (stopped)" if stopped else "")
    ended = time.perf_counter()
    return Answer("".join(text), prompt_tokens, tokens, first - started, ended - first, stopped, cut)


def _lines() -> Iterator[str]:
    """What the user types, line by line; Ctrl-C drops a line, Ctrl-D ends."""
    while True:
        try:
            yield input(">>> ").strip()
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):  # of an impatient second Ctrl-C
                print("\n(Ctrl-D or /exit leaves)")
        except EOFError:
            print()
            return


def _system(text: str | None) -> list[dict[str, str]]:
    return [{"role": "system", "content": text}] if text else []


def _write(text: str) -> None:
    """Model text to stdout at once; on a terminal without what could steer it."""
    sys.stdout.write(text.translate(_CONTROL) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _enable_line_editing() -> None:
    try:
        import readline  # noqa: F401 (its import gives `input` a history and editing keys)
    except ImportError:
        return
