"""From texts, and pairs of texts, to what an encoder reads of them: tokens, limits, and errors that name the field."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cupola.engine.encoder_desk import Tokens
from cupola.errors import ContextLengthError, RequestError
from cupola.text.tokenizer import Tokenizer

Input = str | Sequence[int]
Pair = tuple[str, str]
Result = TypeVar("Result")

# Texts of up to this many characters together are tokenized in place: it takes less time than the way to a thread.
_INLINE_CHARACTERS = 2048


@dataclass(frozen=True, slots=True)
class EncoderText:
    """The text side of one encoder.

    Args:
        tokenizer: the model's.
        max_tokens: of one text, or of a pair.
        pair_types: the two texts of a pair have different token types.
    """

    tokenizer: Tokenizer
    max_tokens: int
    pair_types: bool = False

    async def texts(self, inputs: Sequence[Input], truncate: int | None) -> list[Tokens]:
        """The tokens of texts; of texts that are cut the first ones are kept, of token ids the last.

        Raises:
            RequestError: an input has no tokens, or `truncate` is out of range.
            ContextLengthError: an input is too long.
        """
        limit = self._limit(truncate)
        texts = [one for one in inputs if isinstance(one, str)]
        encoded = await _aside(sum(map(len, texts)), lambda: self.tokenizer.encode_all(texts, limit))
        rest = iter(encoded)
        ids = [next(rest) if isinstance(one, str) else one if limit is None else one[-limit:] for one in inputs]
        for index, one in enumerate(ids):
            self._check(len(one), f"input {index}" if len(ids) > 1 else "the input", "input")
        return [Tokens(one) for one in ids]

    async def pairs(
        self, pairs: Sequence[Pair], truncate: int | None, second_limit: int | None = None, field: str = "input"
    ) -> list[Tokens]:
        """The tokens of pairs; the longer text of one that is cut loses tokens at its end first.

        Args:
            second_limit: cut second texts to that many tokens before; None: as they are.
            field: what holds the pairs, for errors.

        Raises as `texts` does.
        """
        limit = self._limit(truncate)
        size = sum(len(first) + len(second) for first, second in pairs)
        encoded = await _aside(size, lambda: self.tokenizer.encode_pairs(pairs, limit, second_limit))
        for index, (ids, _) in enumerate(encoded):
            name = f"{field}.{index}" if len(encoded) > 1 else field
            self._check(len(ids), f"the pair of `{name}`", name)
        return [Tokens(ids, types if self.pair_types else None) for ids, types in encoded]

    def _limit(self, truncate: int | None) -> int | None:
        if truncate is not None and truncate != -1 and not 1 <= truncate <= self.max_tokens:
            raise RequestError(
                f"`truncate_prompt_tokens` is {truncate}; allowed: -1 (what the model reads) or 1 to {self.max_tokens}",
                param="truncate_prompt_tokens",
            )
        return self.max_tokens if truncate == -1 else truncate

    def _check(self, length: int, which: str, param: str) -> None:
        if length == 0:
            raise RequestError(f"{which} has no tokens", param=param)
        if length > self.max_tokens:
            raise ContextLengthError(
                f"{which} has {length} tokens, but the model reads at most {self.max_tokens}",
                param=param,
                code="context_length_exceeded",
                hint="shorten it, or ask for `truncate_prompt_tokens`: -1 cuts it to what the model reads",
            )


async def _aside(characters: int, work: Callable[[], Result]) -> Result:
    """The result of `work`, which is done in a thread where there is much to do."""
    return work() if characters <= _INLINE_CHARACTERS else await asyncio.to_thread(work)
