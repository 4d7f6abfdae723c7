"""One request's output on its way from the engine to its reader.

`Mailbox` is the engine's end: it turns native deltas into text and keeps what was not read yet. `TextStream`
is the reader's end, and a `Bell` wakes the reader: of one stream, or of several that are read side by side. A slow
reader loses nothing and holds up nobody: what piles up is given to it as one delta.

All of this runs for every token of every stream, on the cores that compute: it is written to be short.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType

from cupola.engine.output import Completion, ScoredPosition, TextDelta, Usage, scored
from cupola.engine.report import RequestReport
from cupola.engine.request import Delta, FinishReason
from cupola.errors import CupolaError, EngineError, RequestError
from cupola.text.detokenizer import Detokenizer
from cupola.text.tokenizer import Tokenizer


class Bell:
    """Wakes one reader, once for all that came since it last woke. Belongs to one event loop."""

    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the reader now, or at once when it next waits."""
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Until it has rung since the last call. One task at a time may wait."""
        if not self._rung:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._rung = False


class Mailbox:
    """What the engine has generated for one request and its reader has not taken yet."""

    __slots__ = (
        "_cached_tokens",
        "_completion_tokens",
        "_detokenizer",
        "_error",
        "_finish_reason",
        "_first_token",
        "_logprobs",
        "_prompt_logprobs",
        "_stop_logprob",
        "_stop_sequence",
        "_text",
        "_token_ids",
        "_tokenizer",
        "bell",
        "prompt_tokens",
        "request_id",
    )

    def __init__(
        self,
        request_id: int,
        prompt_tokens: int,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        shown_ids: Sequence[int] = (),
        bell: Bell | None = None,
    ) -> None:
        self.request_id = request_id
        self.prompt_tokens = prompt_tokens
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer, stop, shown_ids)
        self._text = ""
        self._token_ids: list[int] = []
        self._logprobs: list[ScoredPosition] = []
        self._prompt_logprobs: list[ScoredPosition] = []
        self._stop_logprob: ScoredPosition | None = None
        self._completion_tokens = 0
        self._cached_tokens = 0
        self._finish_reason: FinishReason | None = None
        self._stop_sequence: str | None = None
        self._first_token: float | None = None
        self._error: CupolaError | None = None
        self.bell = bell or Bell()

    @property
    def ended(self) -> bool:
        """Nothing more will be put in."""
        return self._finish_reason is not None or self._error is not None

    def put(self, delta: Delta) -> None:
        """Take over one native delta. After it, `ended` may be true because a stop string was found."""
        if self._first_token is None and delta.token_ids:
            self._first_token = time.perf_counter()
        piece = self._detokenizer.push(delta.token_ids)
        self._text += piece.text
        self._token_ids += delta.token_ids[: piece.tokens]
        self._completion_tokens += piece.tokens
        if delta.logprobs:
            self._logprobs += (scored(self._tokenizer, position) for position in delta.logprobs[: piece.tokens])
        if delta.prompt_logprobs:
            self._prompt_logprobs += (scored(self._tokenizer, position) for position in delta.prompt_logprobs)
        self._cached_tokens = delta.num_cached or self._cached_tokens
        if piece.stop is not None:
            self._finish_reason, self._stop_sequence = FinishReason.STOP, piece.stop
        elif delta.finish_reason is not None:
            self._end(delta)
        if self._has_news() or self._error is not None:
            self.bell.ring()

    def _has_news(self) -> bool:
        return bool(self._token_ids or self._text or self._prompt_logprobs or self._finish_reason is not None)

    def _end(self, last: Delta) -> None:
        if last.finish_reason is FinishReason.ERROR:
            self._error = EngineError(
                last.error or "The engine failed while it worked on this request",
                hint="Send the request again; if it fails again, look at the log of the server.",
            )
        elif last.finish_reason is FinishReason.REFUSED:
            self._error = RequestError(last.error or "The request asks for what cannot be")
        else:
            self._finish(last)

    def _finish(self, last: Delta) -> None:
        tail = self._detokenizer.finish()
        self._text += tail.text
        if last.finish_reason is FinishReason.STOP and not last.token_ids:
            self._completion_tokens += 1  # the stop id itself, which the engine does not pass on
            if last.logprobs:
                self._stop_logprob = scored(self._tokenizer, last.logprobs[0])
        self._stop_sequence = tail.stop
        self._finish_reason = last.finish_reason if tail.stop is None else FinishReason.STOP

    def fail(self, error: CupolaError) -> None:
        """End the request with an error; the reader gets what came before it first."""
        if not self.ended:
            self._error = error
        self.bell.ring()

    def report(self) -> RequestReport:
        """The numbers of the request, at its end."""
        abandoned = FinishReason.ABORT if self._error is None else FinishReason.ERROR
        return RequestReport(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self._completion_tokens,
            finish=self._finish_reason or abandoned,
            first_token=self._first_token,
            ended=time.perf_counter(),
        )

    def take(self) -> TextDelta | None:
        """Everything since the last call as one delta; None if there is nothing.

        Raises the error of a failed request, after what came before it.
        """
        if not self._has_news():
            if self._error is not None:
                raise self._error
            return None
        delta = TextDelta(
            self._text,
            tuple(self._token_ids),
            self._finish_reason,
            None if self._finish_reason is None else self._usage(),
            tuple(self._logprobs),
            tuple(self._prompt_logprobs),
            self._stop_sequence,
            self._stop_logprob,
        )
        self._text = ""
        self._token_ids.clear()
        self._logprobs.clear()
        self._prompt_logprobs.clear()
        if self._error is not None:
            self.bell.ring()  # the reader has to come again for it
        return delta

    def _usage(self) -> Usage:
        return Usage(self.prompt_tokens, self._completion_tokens, self._cached_tokens)


class TextStream(AsyncIterator[TextDelta]):
    """The output of one request, as an async iterator of deltas; the last one has a finish_reason.

    Leaving it early aborts the request: by `aclose`, by the end of `async with`, by cancelling the task that
    waits for the next delta, or by dropping the stream.
    """

    def __init__(self, mailbox: Mailbox, abandon: Callable[[int], None]) -> None:
        self._mailbox = mailbox
        self._abandon = abandon
        self._exhausted = False

    @property
    def request_id(self) -> int:
        """For `AsyncEngine.abort`."""
        return self._mailbox.request_id

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompt."""
        return self._mailbox.prompt_tokens

    def poll(self) -> TextDelta | None:
        """What has come since the last call, as one delta; None if nothing has. Call it no more after the last one.

        Raises the error of a failed request.
        """
        try:
            delta = self._mailbox.take()
        except CupolaError:
            self._exhausted = True
            raise
        if delta is not None:
            self._exhausted = delta.finish_reason is not None
        return delta

    async def __anext__(self) -> TextDelta:
        if self._exhausted:
            raise StopAsyncIteration
        try:
            while (delta := self.poll()) is None:
                await self._mailbox.bell.wait()
        except BaseException:
            await self.aclose()
            raise
        return delta

    async def aclose(self) -> None:
        """End the iteration; aborts the request if it still runs. May be called twice."""
        self._exhausted = True
        if not self._mailbox.ended:
            self._abandon(self._mailbox.request_id)

    async def completion(self) -> Completion:
        """Read to the end, and give the whole output."""
        return Completion.of([delta async for delta in self])

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._mailbox.ended:
            self._abandon(self._mailbox.request_id)
