"""`AsyncEngine`: text in, text out, for asyncio.

It owns the way of a request through the text layer: tokenize, check, submit to the backend. Its output comes back
through the `mailroom`. Scheduling, sampling and the model are the backend's; HTTP and JSON are the server's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType

from cupola.engine.admission import cache_seed, check_params, native_request
from cupola.engine.backends.select import open_model
from cupola.engine.classification import Classification
from cupola.engine.embedding import Embedding
from cupola.engine.encoder_desk import EncoderDesk
from cupola.engine.encoder_text import Pair
from cupola.engine.grammar import CompiledGrammar
from cupola.engine.grammar_compiler import GrammarCompiler
from cupola.engine.histogram import HistogramCounts
from cupola.engine.mailroom import Mailroom
from cupola.engine.options import EngineOptions
from cupola.engine.output import Completion, Score, TextDelta, Usage
from cupola.engine.purposes import Encoders, wrong_purpose
from cupola.engine.report import RequestReport
from cupola.engine.request import PLAIN, EngineConfig, EngineStats, RequestOptions, SamplingParams
from cupola.engine.reranking import PairOptions, Ranked, Similarity, ranked
from cupola.engine.score import score_all
from cupola.engine.stream import Bell, Mailbox, TextStream
from cupola.errors import EngineError, OverloadedError, RequestError
from cupola.manifest import Manifest
from cupola.text.chat_template import ChatTemplate, Message
from cupola.text.tokenizer import Tokenizer

__all__ = ["AsyncEngine", "Completion", "Prompt", "TextDelta", "TextStream", "Usage"]

Prompt = str | Sequence[int]

DEFAULT_MODEL = "smollm2"

# Texts up to this many characters are tokenized in place: it takes less time than the way to a thread and back.
_INLINE_CHARACTERS = 2048

_LOG = logging.getLogger("cupola.engine")


class AsyncEngine:
    """A model that generates, for asyncio.

    Args:
        model: a compiled folder, or any name that `cupola compile` takes (compiled on first use), or "scripted".
        backend: "auto", "compiled" or "scripted"; `backend_reason` says what "auto" chose and why.
        config: what the user chose; None takes the defaults.

    The constructor blocks while the model is loaded (and compiled, if need be); `open` does that in a thread.
    An engine serves one event loop at a time.

    Raises:
        ModelError, IncompatibleError, UnsupportedError, StorageError, UsageError: the model cannot be opened so.
    """

    def __init__(
        self, model: str = DEFAULT_MODEL, *, backend: str = "auto", config: EngineOptions | None = None
    ) -> None:
        self._model = open_model(model, backend, config or EngineOptions())
        self._backend = self._model.backend
        self._grammars = GrammarCompiler(self._model.tokenizer, self._model.manifest)
        self._mailroom = Mailroom(self._backend, self.death)
        self._encoder = Encoders.of(self._model, self.death)
        self._ids = itertools.count(1)
        self._draining = False
        self._closed = False

    @classmethod
    async def open(
        cls, model: str = DEFAULT_MODEL, *, backend: str = "auto", config: EngineOptions | None = None
    ) -> AsyncEngine:
        """Like the constructor, without blocking the event loop."""
        return await asyncio.to_thread(cls, model, backend=backend, config=config)

    # What the engine is.

    @property
    def model_name(self) -> str:
        """The model's name, as its manifest gives it."""
        return self.manifest.name

    @property
    def manifest(self) -> Manifest:
        """The manifest of the compiled model."""
        return self._model.manifest

    @property
    def config(self) -> EngineConfig:
        """The sizes that the engine runs with, all resolved."""
        return self._model.config

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._model.tokenizer

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The model's chat template; None for a model without one."""
        return self._model.chat_template

    @property
    def default_params(self) -> SamplingParams:
        """The sampling parameters of a request that gives none (the model's own defaults)."""
        return self._model.default_params

    @property
    def backend(self) -> str:
        """Name of the backend: compiled or scripted."""
        return self._model.kind

    @property
    def backend_reason(self) -> str:
        """One sentence: which backend was chosen, and why."""
        return self._model.reason

    # How it is.

    @property
    def healthy(self) -> bool:
        """The engine can work: its thread lives and it is not closed."""
        return not self._closed and self._backend.alive

    @property
    def failure(self) -> str | None:
        """Why the engine died, if it did."""
        return self._backend.failure

    @property
    def draining(self) -> bool:
        """New requests are refused because `drain` was called."""
        return self._draining

    @property
    def active(self) -> int:
        """Number of requests that were submitted and have not ended."""
        return len(self._under_way)

    def stats(self) -> EngineStats:
        """Counters and gauges of the backend now."""
        return self._backend.stats()

    def histograms(self) -> Mapping[str, HistogramCounts]:
        """What the backend measures of its steps, by name."""
        return self._backend.histograms()

    def watch(self, on_end: Callable[[RequestReport], None]) -> None:
        """Have every request's numbers reported when it ends; on the event loop."""
        self._under_way.watch(on_end)

    # From text to token ids.

    async def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text; long ones are tokenized in a thread. May be empty."""
        if len(text) <= _INLINE_CHARACTERS:
            return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return await asyncio.to_thread(self.tokenizer.encode, text, add_special_tokens=add_special_tokens)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        template_arguments: Mapping[str, object] | None = None,
    ) -> str:
        """The text that the model's chat template makes of a conversation.

        Raises:
            RequestError: the model has no chat template, or it refuses these messages.
        """
        self._check_generates()
        if self.chat_template is None:
            raise RequestError(
                f"Model `{self.model_name}` has no chat template",
                param="messages",
                hint="Use the completions endpoint, or a model that was trained for chat.",
            )
        return self.chat_template.render(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, arguments=template_arguments
        )

    async def tokenize_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        template_arguments: Mapping[str, object] | None = None,
    ) -> list[int]:
        """The token ids of a conversation, ready for `submit`. Raises as `render_chat` does."""
        text = self.render_chat(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            template_arguments=template_arguments,
        )
        # The template writes the special tokens itself.
        return await self.tokenize(text, add_special_tokens=False)

    # Encoders.

    async def embed(
        self, inputs: Sequence[Prompt], *, dimensions: int | None = None, truncate: int | None = None
    ) -> list[Embedding]:
        """The vectors of texts, in their order; whatever is asked for at the same time is computed together.

        Args:
            inputs: texts, or token ids, which are taken as they are.
            dimensions: cut vectors to that many components, for models that were trained for it.
            truncate: cut inputs to that many tokens, or with -1 to what the model reads; None: they have to fit.

        Raises:
            RequestError: the model makes no embeddings, or an argument is out of range (`param` names the field).
            ContextLengthError: an input is too long.
            OverloadedError: too many wait, or the engine drains.
            EngineError: the engine failed, is dead or closed.
        """
        self._check_alive()
        return await self._encoder.embedder.embed(inputs, dimensions, truncate)

    async def classify(
        self, inputs: Sequence[Prompt], *, truncate: int | None = None, activate: bool | None = None
    ) -> list[Classification]:
        """What a classifier makes of texts, in their order.

        Args:
            inputs: texts, or token ids, which are taken as they are.
            truncate: as for `embed`.
            activate: True: scores are between 0 and 1; False: the model's numbers as they are; None: as the checkpoint
                says.

        Raises as `embed` does.
        """
        self._check_alive()
        return await self._encoder.classifier.classify(inputs, truncate, activate)

    async def similarity(self, pairs: Sequence[Pair], options: PairOptions | None = None) -> list[Similarity]:
        """How well the two texts of each pair fit each other: by a reranker, or by the cosine of their embeddings.

        Raises as `embed` does.
        """
        self._check_alive()
        return await self._encoder.similarities(pairs, options or PairOptions())

    async def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, options: PairOptions | None = None
    ) -> list[Ranked]:
        """The documents in the order in which they fit the query, the best first; with `top_n`, so many of them.

        Raises as `embed` does; `param` names the document.
        """
        pairs = [(query, document) for document in documents]
        return ranked(await self.similarity(pairs, options or PairOptions(field="documents")), top_n)

    # Generation.

    async def prepare(self, params: SamplingParams | None) -> CompiledGrammar | None:
        """The grammar of `params` for `submit`, compiled without blocking the event loop; None if there is none.

        Raises:
            RequestError: it cannot be compiled, or not in time.
            OverloadedError: too many wait to be compiled.
        """
        spec = (params or self.default_params).grammar
        return None if spec is None else await self._grammars.compile(spec)

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        options: RequestOptions = PLAIN,
        *,
        grammar: CompiledGrammar | None = None,
        bell: Bell | None = None,
    ) -> TextStream:
        """Start a request now, and give the stream of its output. Call it on the event loop.

        Args:
            prompt: a text, which is tokenized in place (`tokenize` first if it may be long), or token ids.
            params: None takes `default_params`.
            options: how the engine treats the request.
            grammar: what `prepare` made of `params`; None compiles it in place, which may take seconds.
            bell: what wakes the reader of several streams, who then calls `poll` on each; None makes one of its own.

        Raises:
            RequestError: a parameter or token id out of range, an empty prompt (`param` names the field).
            ContextLengthError: the prompt and `max_tokens` do not fit.
            OverloadedError: the queue is full, or the engine drains.
            EngineError: the engine is dead or closed.
        """
        self._check_alive()
        self._check_generates()
        self._mailroom.attach()
        token_ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        params = params or self.default_params
        if params.grammar is not None and grammar is None:
            grammar = self._grammars.compile_now(params.grammar)
        request = native_request(
            next(self._ids),
            token_ids,
            params,
            options,
            self.config,
            self.manifest,
            bad_words=self._bad_words(params),
            grammar=grammar,
        )
        sampling = request.sampling
        if options.pin_prefix is False:
            self._backend.unpin(request.token_ids, request.cache_seed)
        prompt_tokens, shown = len(request.token_ids), sampling.shown_ids
        mailbox = Mailbox(request.id, prompt_tokens, self.tokenizer, sampling.stop, shown, bell)
        self._mailroom.submit(request, mailbox)
        _LOG.debug(
            "engine request %d: %d prompt tokens, up to %d more", request.id, len(token_ids), sampling.max_tokens
        )
        return TextStream(mailbox, self._mailroom.abandon)

    async def generate(
        self, prompt: Prompt, params: SamplingParams | None = None, options: RequestOptions = PLAIN
    ) -> AsyncGenerator[TextDelta, None]:
        """`async for delta in engine.generate(...)`: the deltas of one request. Raises as `submit` does."""
        check_params(params or self.default_params, self.manifest)
        token_ids = await self.tokenize(prompt) if isinstance(prompt, str) else prompt
        grammar = await self.prepare(params)
        async with self.submit(token_ids, params, options, grammar=grammar) as stream:
            async for delta in stream:
                yield delta

    async def complete(
        self, prompt: Prompt, params: SamplingParams | None = None, options: RequestOptions = PLAIN
    ) -> Completion:
        """The whole output of one request. Raises as `submit` does."""
        token_ids = await self.tokenize(prompt) if isinstance(prompt, str) else prompt
        grammar = await self.prepare(params)
        async with self.submit(token_ids, params, options, grammar=grammar) as stream:
            return await stream.completion()

    async def score(
        self, prompt: Prompt, continuations: Sequence[Prompt], options: RequestOptions = PLAIN, *, top: int = 0
    ) -> list[Score]:
        """The log-probabilities of given continuations of a prompt, in their order.

        They are those that generating the same tokens reports. Texts are tokenized by themselves, prompt and
        continuation apart, so that all continuations follow the same tokens.

        Args:
            prompt: at least one token.
            continuations: at least one; each has at least one token.
            options: how the engine treats each of the requests.
            top: report that many of the most probable tokens beside each token (0 to 20).

        Raises as `submit` does.
        """
        return await score_all(self, prompt, continuations, options, top)

    async def stream_chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None
    ) -> AsyncGenerator[TextDelta, None]:
        """The deltas of the assistant's next message. Raises as `render_chat` and `submit` do."""
        grammar = await self.prepare(params)
        async with self.submit(await self.tokenize_chat(messages), params, grammar=grammar) as stream:
            async for delta in stream:
                yield delta

    async def chat(self, messages: Sequence[Message], params: SamplingParams | None = None) -> Completion:
        """The assistant's next message. Raises as `render_chat` and `submit` do."""
        return await self.complete(await self.tokenize_chat(messages), params)

    def unpin(self, prompt: Prompt, cache_salt: str | None = None) -> None:
        """Let the pages go that a request with this prompt, `pin_prefix` and this salt pinned; others are ignored."""
        token_ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        self._backend.unpin(token_ids, cache_seed(self.manifest.name, cache_salt))

    def check_room(self) -> None:
        """For those who want to refuse before they render and tokenize what `submit` would refuse in any case.

        Raises:
            OverloadedError: the queue is full.
        """
        config = self.config
        if self.active >= config.max_queue + min(config.max_batch, config.max_step_tokens):
            raise OverloadedError(f"{config.max_queue} requests are waiting already", hint="try again later")

    def abort(self, request_id: int) -> None:
        """End a request: its stream ends with finish_reason ABORT. Unknown and ended requests are ignored."""
        self._mailroom.abort(request_id)

    # The end.

    async def drain(self, grace: float | None = None) -> bool:
        """Refuse new requests and wait until the accepted ones have ended; after `grace` seconds abort the rest.

        Returns whether all of them ended by themselves.
        """
        self._draining = True
        self._backend.drain()
        try:
            await asyncio.wait_for(self._under_way.wait_idle(), grace)
        except TimeoutError:
            self._under_way.abort_all()
            await self._under_way.wait_idle()
            return False
        return True

    async def close(self) -> None:
        """Stop the engine; streams that still run raise EngineError. May be called twice."""
        self.retire()
        await asyncio.to_thread(self.release)

    def retire(self) -> None:
        """The first half of `close`, on the event loop: refuse requests, fail those that run."""
        self._closed = True
        closed = EngineError("The engine was closed while this request ran")
        self._mailroom.close(closed)
        if self._encoder.desk is not None:
            self._encoder.desk.close(closed)

    def release(self) -> None:
        """The second half of `close`: stop the backend and free its memory. Waits for the step that runs."""
        self._grammars.close()
        self._backend.close()

    async def __aenter__(self) -> AsyncEngine:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Behind the scenes.

    def _bad_words(self, params: SamplingParams) -> list[Sequence[int]]:
        ways = (self.tokenizer.word_ids(word) if isinstance(word, str) else [word] for word in params.bad_words)
        return list(itertools.chain.from_iterable(ways))

    @property
    def _under_way(self) -> Mailroom | EncoderDesk:
        """What keeps the requests that have not ended."""
        return self._mailroom if self._encoder.desk is None else self._encoder.desk

    def _check_generates(self) -> None:
        if self.manifest.task != "generate":
            raise wrong_purpose(self.manifest, "generate text")

    def _check_alive(self) -> None:
        if not self.healthy:
            raise self.death()

    def death(self) -> EngineError:
        """The error of a request to an engine that is dead or closed."""
        if self._closed:
            return EngineError("The engine is closed")
        return EngineError(f"The engine died: {self._backend.failure or 'unknown cause'}", hint="Restart the server.")
