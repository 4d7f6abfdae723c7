"""`Engine`: the same engine as `AsyncEngine`, for programs without asyncio.

Nothing is implemented twice: an `AsyncEngine` runs on an event loop in a thread of its own, and this class waits
for it.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from types import TracebackType
from typing import TypeVar

from cupola.engine.async_engine import DEFAULT_MODEL, AsyncEngine, Prompt
from cupola.engine.classification import Classification
from cupola.engine.embedding import Embedding
from cupola.engine.encoder_text import Pair
from cupola.engine.gather import complete_all
from cupola.engine.options import EngineOptions
from cupola.engine.output import Completion, Score, TextDelta
from cupola.engine.request import PLAIN, EngineConfig, EngineStats, RequestOptions, SamplingParams
from cupola.engine.reranking import PairOptions, Ranked, Similarity
from cupola.errors import RequestError
from cupola.manifest import Manifest
from cupola.text.chat_template import ChatTemplate, Message
from cupola.text.tokenizer import Tokenizer

Result = TypeVar("Result")

Prompts = str | Sequence[str] | Sequence[Sequence[int]]


class Engine:
    """A model that generates.

        with Engine("smollm2") as engine:
            for completion in engine.generate(["Once upon a time", "The sea is"], SamplingParams(max_tokens=32)):
                print(completion.text)

    Args:
        model: a compiled folder, or any name that `cupola compile` takes (compiled on first use), or "scripted".
        backend: "auto", "compiled" or "scripted"; `backend_reason` says what "auto" chose and why.
        config: what the user chose; None takes the defaults.

    It may be used from several threads at once.

    Raises:
        ModelError, IncompatibleError, UnsupportedError, StorageError, UsageError: the model cannot be opened so.
    """

    def __init__(
        self, model: str = DEFAULT_MODEL, *, backend: str = "auto", config: EngineOptions | None = None
    ) -> None:
        self._engine = AsyncEngine(model, backend=backend, config=config)
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="cupola-engine-loop", daemon=True)
        thread.start()
        self._finalizer = weakref.finalize(self, _close, self._engine, self._loop, thread)

    # What the engine is.

    @property
    def model_name(self) -> str:
        """The model's name, as its manifest gives it."""
        return self._engine.model_name

    @property
    def manifest(self) -> Manifest:
        """The manifest of the compiled model."""
        return self._engine.manifest

    @property
    def config(self) -> EngineConfig:
        """The sizes that the engine runs with, all resolved."""
        return self._engine.config

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._engine.tokenizer

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The model's chat template; None for a model without one."""
        return self._engine.chat_template

    @property
    def default_params(self) -> SamplingParams:
        """The sampling parameters of a request that gives none (the model's own defaults)."""
        return self._engine.default_params

    @property
    def backend(self) -> str:
        """Name of the backend: compiled or scripted."""
        return self._engine.backend

    @property
    def backend_reason(self) -> str:
        """One sentence: which backend was chosen, and why."""
        return self._engine.backend_reason

    @property
    def healthy(self) -> bool:
        """The engine can work: its thread lives and it is not closed."""
        return self._engine.healthy

    def stats(self) -> EngineStats:
        """Counters and gauges of the backend now."""
        return self._engine.stats()

    # Generation.

    def generate(
        self,
        prompts: Prompts,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        options: RequestOptions = PLAIN,
    ) -> list[Completion]:
        """The outputs of one or more prompts, in their order; the engine runs them together.

        Args:
            prompts: one text, a list of texts, or a list of lists of token ids.
            params: one for all prompts, or one for each; None takes `default_params`. Several answers to one prompt
                are `generate([prompt] * n, params.choices(n))`.
            options: how the engine treats each of the requests.

        Raises:
            RequestError, ContextLengthError: a prompt or a parameter is out of range; the other prompts are ended.
            EngineError: the engine is dead or closed.
        """
        jobs = _jobs(prompts, params)
        return self._wait(complete_all(self._engine, jobs, options))

    def score(
        self, prompt: Prompt, continuations: Sequence[Prompt], options: RequestOptions = PLAIN, *, top: int = 0
    ) -> list[Score]:
        """The log-probabilities of given continuations of a prompt; see `AsyncEngine.score`."""
        return self._wait(self._engine.score(prompt, continuations, options, top=top))

    def unpin(self, prompt: Prompt, cache_salt: str | None = None) -> None:
        """Let the pages go that a request with this prompt and `pin_prefix` pinned; see `AsyncEngine.unpin`."""
        self._engine.unpin(prompt, cache_salt)

    def embed(
        self, inputs: Sequence[Prompt], *, dimensions: int | None = None, truncate: int | None = None
    ) -> list[Embedding]:
        """The vectors of texts, in their order; see `AsyncEngine.embed`."""
        return self._wait(self._engine.embed(inputs, dimensions=dimensions, truncate=truncate))

    def classify(
        self, inputs: Sequence[Prompt], *, truncate: int | None = None, activate: bool | None = None
    ) -> list[Classification]:
        """What a classifier makes of texts, in their order; see `AsyncEngine.classify`."""
        return self._wait(self._engine.classify(inputs, truncate=truncate, activate=activate))

    def similarity(self, pairs: Sequence[Pair], options: PairOptions | None = None) -> list[Similarity]:
        """How well the two texts of each pair fit each other; see `AsyncEngine.similarity`."""
        return self._wait(self._engine.similarity(pairs, options))

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, options: PairOptions | None = None
    ) -> list[Ranked]:
        """The documents in the order in which they fit the query; see `AsyncEngine.rerank`."""
        return self._wait(self._engine.rerank(query, documents, top_n=top_n, options=options))

    def chat(self, messages: Sequence[Message], params: SamplingParams | None = None) -> Completion:
        """The assistant's next message. RequestError: the model cannot chat, or refuses the messages."""
        return self._wait(self._engine.chat(messages, params))

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Generator[TextDelta, None, None]:
        """The deltas of one prompt's output. Leaving the loop early aborts the request. Raises as `generate`."""
        return self._iterate(self._engine.generate(prompt, params))

    def stream_chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None
    ) -> Generator[TextDelta, None, None]:
        """The deltas of the assistant's next message. Raises as `chat`."""
        return self._iterate(self._engine.stream_chat(messages, params))

    # The end.

    def close(self) -> None:
        """Stop the engine and free its memory. May be called twice."""
        self._finalizer()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, work: Coroutine[object, object, Result]) -> Result:
        if not self._finalizer.alive:
            work.close()
            raise self._engine.death()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C while waiting: what runs on the loop must not run on.
            future.cancel()
            raise

    def _iterate(self, deltas: AsyncGenerator[TextDelta, None]) -> Generator[TextDelta, None, None]:
        puller = _Puller(deltas)
        try:
            while (delta := self._wait(puller.pull())) is not None:
                yield delta
        finally:
            if self._finalizer.alive:
                self._wait(puller.leave())


class _Puller:
    """Takes deltas one by one for a caller that Ctrl-C may tear away at any moment, also while a pull runs on."""

    def __init__(self, deltas: AsyncGenerator[TextDelta, None]) -> None:
        self._deltas = deltas
        self._pull: asyncio.Task[object] | None = None

    async def pull(self) -> TextDelta | None:
        """The next delta; None after the last (StopAsyncIteration cannot pass through a future)."""
        self._pull = asyncio.current_task()
        return await anext(self._deltas, None)

    async def leave(self) -> None:
        """End the iteration, and before it a pull that nobody waits for any more."""
        if self._pull is not None and not self._pull.done():
            self._pull.cancel()
            await asyncio.wait([self._pull])
        await self._deltas.aclose()


async def _retire(engine: AsyncEngine) -> None:
    """Let every call that other threads wait in come to its end."""
    engine.retire()
    calls = asyncio.all_tasks() - {asyncio.current_task()}
    if calls:
        await asyncio.wait(calls)


def _close(engine: AsyncEngine, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Close the engine and end its event loop and thread. Also runs at the end of the interpreter."""
    asyncio.run_coroutine_threadsafe(_retire(engine), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    engine.release()


def _jobs(
    prompts: Prompts, params: SamplingParams | Sequence[SamplingParams] | None
) -> list[tuple[Prompt, SamplingParams | None]]:
    listed: list[Prompt] = [prompts] if isinstance(prompts, str) else list(prompts)
    if any(isinstance(prompt, int) for prompt in listed):
        raise RequestError("`prompts` is a list of token ids; give a list of such lists", param="prompt")
    if params is None or isinstance(params, SamplingParams):
        return [(prompt, params) for prompt in listed]
    if len(params) != len(listed):
        raise RequestError(f"There are {len(listed)} prompts, but {len(params)} sampling parameters", param="params")
    return list(zip(listed, params, strict=True))
