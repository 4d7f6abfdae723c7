"""Log-probabilities in responses: OpenAI's shape for chat, the older one for completions, and that of a prompt."""

from __future__ import annotations

from cupola.protocol.generation import ResponseModel


class TopLogprob(ResponseModel):
    """A token that could have stood there. `bytes` are exact where `token` has to show U+FFFD."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


class ContentLogprob(TopLogprob):
    """The token that stands there, and the most probable ones."""

    top_logprobs: tuple[TopLogprob, ...]


class ChatLogprobs(ResponseModel):
    """One entry for each token of a choice, or of a frame of it."""

    content: tuple[ContentLogprob, ...]
    refusal: None = None


class CompletionLogprobs(ResponseModel):
    """One entry in each list for each token of a choice, or of a frame of it; null for the first token of an echo.

    A token that is no whole characters is written `bytes:\\xe2\\x82`. `text_offset` counts the characters of the
    choice's text before a token.
    """

    tokens: tuple[str, ...]
    token_logprobs: tuple[float | None, ...]
    top_logprobs: tuple[dict[str, float] | None, ...] | None
    text_offset: tuple[int, ...]


class PromptLogprob(ResponseModel):
    """A token of the vocabulary at one position of the prompt; rank 1 is the most probable."""

    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = tuple[dict[int, PromptLogprob] | None, ...]
"""For each token of the prompt the one that stands there, first, and the most probable ones, by their ids."""
