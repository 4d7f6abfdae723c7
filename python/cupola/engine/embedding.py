"""Embeddings for asyncio: from an encoder's results to those who wait for them.

It owns the jobs under way and the tie to an event loop, and what becomes of texts and vectors on their way in and out.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cupola.engine.backends.backend import OpenedModel
from cupola.engine.native_encoder import NativeEmbedder
from cupola.errors import ContextLengthError, CupolaError, EngineError, RequestError
from cupola.manifest import Embedding as EmbeddingInfo
from cupola.text.tokenizer import Tokenizer

Input = str | Sequence[int]

# Texts of up to this many characters together are tokenized in place: it takes less time than the way to a thread.
_INLINE_CHARACTERS = 2048


@dataclass(frozen=True, slots=True)
class Embedding:
    """What an encoder makes of one text.

    Args:
        vector: float32.
        num_tokens: of the text, special ones included.
    """

    vector: array[float]
    num_tokens: int


def no_embeddings(name: str) -> RequestError:
    """The error of who asks a decoder for embeddings."""
    return RequestError(
        f"the model `{name}` generates text and makes no embeddings",
        param="model",
        code="unsupported_model",
        hint="choose an encoder, such as `minilm`",
    )


class EmbeddingDesk:
    """The jobs of one encoder. All methods are for the event loop's thread.

    Args:
        embedder: the runner.
        info: what its vectors are.
        tokenizer: the model's.
        max_tokens: of one text.
        death: the error of those whose runner has died.
    """

    def __init__(
        self,
        embedder: NativeEmbedder,
        info: EmbeddingInfo,
        tokenizer: Tokenizer,
        max_tokens: int,
        death: Callable[[], EngineError],
    ) -> None:
        self._embedder, self._info, self._tokenizer, self._death = embedder, info, tokenizer, death
        self._max_tokens = max_tokens
        self._ids = itertools.count(1)
        self._jobs: dict[int, asyncio.Future[bytes]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    def of(cls, model: OpenedModel, death: Callable[[], EngineError]) -> EmbeddingDesk | None:
        """The desk of an encoder; None for other models."""
        info = model.manifest.embedding
        if model.embedder is None or info is None:
            return None
        return cls(model.embedder, info, model.tokenizer, model.config.max_context, death)

    def __len__(self) -> int:
        """Number of jobs that have not ended."""
        return len(self._jobs)

    async def embed(self, inputs: Sequence[Input], dimensions: int | None, truncate: int | None) -> list[Embedding]:
        """See `AsyncEngine.embed`."""
        self._check_dimensions(dimensions)
        texts = await self._tokenize(inputs, self._limit(truncate))
        for index, text in enumerate(texts):
            self._check_length(index, len(text), len(texts))
        row = self._info.dimensions
        vectors = array("f")
        vectors.frombytes(await self._run(texts))
        cut = [self._cut(vectors[i * row : (i + 1) * row], dimensions) for i in range(len(texts))]
        return [Embedding(vector, len(text)) for vector, text in zip(cut, texts, strict=True)]

    def close(self, error: CupolaError) -> None:
        """Let go of the event loop, and fail every job."""
        self._detach()
        self._fail_all(error)

    async def wait_idle(self) -> None:
        """Wait until every job has ended."""
        await self._idle.wait()

    def abort_all(self) -> None:
        """Have the runner end every job."""
        for job_id in self._jobs:
            self._embedder.abort(job_id)

    def _check_dimensions(self, dimensions: int | None) -> None:
        info = self._info
        if dimensions is None or dimensions == info.dimensions:
            return
        if not 1 <= dimensions <= info.dimensions:
            raise RequestError(
                f"`dimensions` is {dimensions}, but the model's vectors have {info.dimensions}", param="dimensions"
            )
        if info.matryoshka and dimensions not in info.matryoshka:
            allowed = ", ".join(str(one) for one in info.matryoshka)
            raise RequestError(
                f"`dimensions` is {dimensions}, but the model was trained for {allowed}", param="dimensions"
            )

    def _limit(self, truncate: int | None) -> int | None:
        if truncate is not None and truncate != -1 and not 1 <= truncate <= self._max_tokens:
            raise RequestError(
                f"`truncate_prompt_tokens` is {truncate}; "
                f"allowed: -1 (what the model reads) or 1 to {self._max_tokens}",
                param="truncate_prompt_tokens",
            )
        return self._max_tokens if truncate == -1 else truncate

    async def _tokenize(self, inputs: Sequence[Input], limit: int | None) -> list[Sequence[int]]:
        """The token ids of every input; of texts the first tokens are kept, of token ids the last."""
        texts = [one for one in inputs if isinstance(one, str)]
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            encoded = self._tokenizer.encode_all(texts, limit)
        else:
            encoded = await asyncio.to_thread(self._tokenizer.encode_all, texts, limit)
        rest = iter(encoded)
        return [next(rest) if isinstance(one, str) else one if limit is None else one[-limit:] for one in inputs]

    def _check_length(self, index: int, length: int, count: int) -> None:
        which = f"input {index}" if count > 1 else "the input"
        if length == 0:
            raise RequestError(f"{which} has no tokens", param="input")
        if length > self._max_tokens:
            raise ContextLengthError(
                f"{which} has {length} tokens, but the model reads at most {self._max_tokens} of a text",
                param="input",
                code="context_length_exceeded",
                hint="shorten it, or ask for `truncate_prompt_tokens`: -1 cuts it to what the model reads",
            )

    async def _run(self, texts: Sequence[Sequence[int]]) -> bytes:
        self._attach()
        job_id, future = next(self._ids), asyncio.get_running_loop().create_future()
        self._embedder.add(job_id, texts)
        # The reader runs on this loop, so no result can have come between `add` and here.
        self._jobs[job_id] = future
        self._idle.clear()
        try:
            return await future
        finally:
            if self._jobs.pop(job_id, None) is not None:  # cancelled
                self._embedder.abort(job_id)
            self._note_idle()

    def _attach(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._jobs:
            raise RuntimeError("This engine has running requests on another event loop")
        self._detach()
        self._idle = asyncio.Event()
        self._idle.set()
        loop.add_reader(self._embedder.event_fd, self._on_event)
        self._loop = loop

    def _detach(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._embedder.event_fd)
        self._loop = None

    def _on_event(self) -> None:
        for result in self._embedder.take():
            future = self._jobs.pop(result.job_id, None)
            if future is None or future.done():
                continue  # nobody waits any more
            if result.error is not None:
                future.set_exception(EngineError(f"the embedding failed: {result.error}"))
            elif result.aborted:
                future.set_exception(EngineError("the embedding was ended before it was done"))
            else:
                future.set_result(result.vectors)
        if not self._embedder.alive:
            self._detach()
            self._fail_all(self._death())

    def _note_idle(self) -> None:
        if not self._jobs:
            self._idle.set()

    def _fail_all(self, error: CupolaError) -> None:
        for future in self._jobs.values():
            if not future.done():
                future.set_exception(error)
        self._jobs.clear()
        self._idle.set()

    def _cut(self, vector: array[float], dimensions: int | None) -> array[float]:
        """The first components, of length 1 again where the whole has it (Kusupati et al., 2022)."""
        if dimensions is None or dimensions == len(vector):
            return vector
        front = vector[:dimensions]
        if not self._info.normalized:
            return front
        norm = math.sqrt(math.fsum(x * x for x in front)) or 1.0
        return array("f", [x / norm for x in front])
