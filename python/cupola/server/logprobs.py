"""From scored positions to the forms in which responses tell log-probabilities. Knows no endpoint."""

from __future__ import annotations

from collections.abc import Sequence

from cupola.engine.output import ScoredPosition, ScoredToken
from cupola.protocol.logprobs import (
    ChatLogprobs,
    CompletionLogprobs,
    ContentLogprob,
    PromptLogprob,
    PromptLogprobs,
    TopLogprob,
)
from cupola.text.detokenizer import Detokenizer
from cupola.text.tokenizer import Tokenizer

# JSON knows no infinity: what cannot come at all is told as what is hardly thinkable.
_LOWEST = -9999.0


def chat_logprobs(positions: Sequence[ScoredPosition]) -> ChatLogprobs:
    """OpenAI's form."""
    return ChatLogprobs(content=content_logprobs(positions))


def content_logprobs(positions: Sequence[ScoredPosition]) -> tuple[ContentLogprob, ...]:
    """One entry for each position."""
    return tuple(
        ContentLogprob(
            token=position.token.text,
            logprob=_finite(position.token.logprob),
            bytes=tuple(position.token.data),
            top_logprobs=tuple(
                TopLogprob(token=token.text, logprob=_finite(token.logprob), bytes=tuple(token.data))
                for token in position.top
            ),
        )
        for position in positions
    )


def prompt_logprobs(positions: Sequence[ScoredPosition]) -> PromptLogprobs:
    """Of a whole prompt; its first token has none."""
    return None, *({token.token_id: _ranked(token) for token in (p.token, *p.top)} for p in positions)


class CompletionLogprobsWriter:
    """The older form, for the tokens of one choice, piece by piece; it keeps count of the text before them.

    Args:
        tokenizer: the model's.
        top: how many of the most probable tokens were asked for.
    """

    def __init__(self, tokenizer: Tokenizer, top: int) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer)
        self._top = top
        self._length = 0

    def unscored(self, token_id: int) -> CompletionLogprobs:
        """A token without a log-probability: the first of a prompt."""
        return CompletionLogprobs(
            tokens=(_legible(self._tokenizer.shown_bytes(token_id)),),
            token_logprobs=(None,),
            top_logprobs=(None,) if self._top else None,
            text_offset=(self._offset(token_id),),
        )

    def write(self, positions: Sequence[ScoredPosition]) -> CompletionLogprobs:
        """The next tokens."""
        return CompletionLogprobs(
            tokens=tuple(_legible(position.token.data) for position in positions),
            token_logprobs=tuple(_finite(position.token.logprob) for position in positions),
            top_logprobs=tuple(_by_text(position, self._top) for position in positions) if self._top else None,
            text_offset=tuple(self._offset(position.token.token_id) for position in positions),
        )

    def _offset(self, token_id: int) -> int:
        """Characters before this token, which is then counted too."""
        before = self._length
        self._length += len(self._detokenizer.push((token_id,)).text)
        return before


def joined(parts: Sequence[CompletionLogprobs]) -> CompletionLogprobs:
    """Several pieces as one."""
    tops = [part.top_logprobs for part in parts if part.top_logprobs is not None]
    return CompletionLogprobs(
        tokens=tuple(token for part in parts for token in part.tokens),
        token_logprobs=tuple(logprob for part in parts for logprob in part.token_logprobs),
        top_logprobs=tuple(entry for top in tops for entry in top) if tops else None,
        text_offset=tuple(offset for part in parts for offset in part.text_offset),
    )


def _by_text(position: ScoredPosition, top: int) -> dict[str, float]:
    """Where two tokens are written alike, the more probable one keeps the name."""
    found: dict[str, float] = {}
    for token in (*position.top[:top], position.token):
        found.setdefault(_legible(token.data), _finite(token.logprob))
    return found


def _ranked(token: ScoredToken) -> PromptLogprob:
    return PromptLogprob(logprob=_finite(token.logprob), rank=token.rank, decoded_token=token.text)


def _legible(data: bytes) -> str:
    """The token as text; as OpenAI writes it where it is no whole characters."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST)
