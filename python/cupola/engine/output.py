"""What the engine gives to its callers: text and token ids of one request, piece by piece or whole.

These are the upward types of `AsyncEngine` and `Engine`; the native ones are in `cupola.engine.request`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from cupola.engine.request import FinishReason, PositionLogprobs
from cupola.errors import EngineError
from cupola.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    `completion_tokens` counts every token that the model generated for it, the stop id included; `cached_tokens` are
    those of the prompt that the prefix cache had already.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token at one position, with its log-probability.

    Args:
        token_id: the token.
        data: its bytes; not necessarily whole characters.
        logprob: natural logarithm of its probability, in the model's own distribution.
        rank: 1 for the token that greedy decoding takes, 2 for the next.
    """

    token_id: int
    data: bytes
    logprob: float
    rank: int

    @property
    def text(self) -> str:
        """Its bytes as text; U+FFFD stands for each part of a character that other tokens complete."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class ScoredPosition:
    """The token that stands at a position, and the most probable ones there, best first."""

    token: ScoredToken
    top: tuple[ScoredToken, ...] = ()


def scored(tokenizer: Tokenizer, position: PositionLogprobs) -> ScoredPosition:
    """What the engine says about a position, with the bytes of its tokens."""
    token, *top = (ScoredToken(i, tokenizer.shown_bytes(i), logprob, rank) for i, logprob, rank in position)
    return ScoredPosition(token, tuple(top))


class TextDelta(NamedTuple):
    """The next piece of one request's output. A tuple: there is one for every token, and tuples are made faster.

    Args:
        text: new text; may be empty while a character or a possible stop string is incomplete.
        token_ids: new token ids. They may be ahead of `text`. A stop id is not among them.
        finish_reason: set on the last delta of a request, and only there.
        usage: set on the last delta, and only there.
        logprobs: one for each of `token_ids`, if the request asked for them.
        prompt_logprobs: of the next positions of the prompt, likewise.
        stop_sequence: the stop string that ended the text, where one did; on the last delta.
        stop_logprob: of the stop id that ended the request, likewise, if it asked for log-probabilities.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    logprobs: tuple[ScoredPosition, ...] = ()
    prompt_logprobs: tuple[ScoredPosition, ...] = ()
    stop_sequence: str | None = None
    stop_logprob: ScoredPosition | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The whole output of one request."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[ScoredPosition, ...] = ()
    prompt_logprobs: tuple[ScoredPosition, ...] = ()
    stop_sequence: str | None = None
    stop_logprob: ScoredPosition | None = None

    @classmethod
    def of(cls, deltas: Sequence[TextDelta]) -> Completion:
        """All deltas of one request put together. EngineError: the last one is missing."""
        if not deltas or deltas[-1].finish_reason is None or deltas[-1].usage is None:
            raise EngineError("The stream was closed before its request ended")
        return cls(
            text="".join(delta.text for delta in deltas),
            token_ids=tuple(chain.from_iterable(delta.token_ids for delta in deltas)),
            finish_reason=deltas[-1].finish_reason,
            usage=deltas[-1].usage,
            logprobs=tuple(chain.from_iterable(delta.logprobs for delta in deltas)),
            prompt_logprobs=tuple(chain.from_iterable(delta.prompt_logprobs for delta in deltas)),
            stop_sequence=deltas[-1].stop_sequence,
            stop_logprob=deltas[-1].stop_logprob,
        )


@dataclass(frozen=True, slots=True)
class Score:
    """What the model thinks of one continuation of a prompt: its tokens, each with its log-probability."""

    positions: tuple[ScoredPosition, ...]
    usage: Usage

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens of the continuation."""
        return tuple(position.token.token_id for position in self.positions)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """The log-probability of each, after the prompt and the tokens before it."""
        return tuple(position.token.logprob for position in self.positions)

    @property
    def total(self) -> float:
        """The log-probability of the whole continuation."""
        return math.fsum(self.logprobs)

    @property
    def is_greedy(self) -> bool:
        """Greedy decoding would have generated just this."""
        return all(position.token.rank == 1 for position in self.positions)
