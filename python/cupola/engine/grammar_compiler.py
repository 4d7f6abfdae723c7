"""Compiles grammars beside the engine and the event loop, within limits, and remembers them.

A few threads of its own do the work, so that a hostile grammar can hold up other grammars at most; large ones have to
pass a trial in a process of its own first. Whoever waits, waits for COMPILE_SECONDS at most.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from cupola.engine.grammar import CompiledGrammar, GrammarSpec, check_grammar, llguidance_form, refused
from cupola.engine.grammar_trial import GrammarTrial
from cupola.engine.native_grammar import GrammarTokenizer
from cupola.errors import OverloadedError
from cupola.manifest import Manifest
from cupola.text.tokenizer import Tokenizer
from cupola.text.vocabulary import Vocabulary, read_vocabulary

COMPILE_SECONDS = 5.0
_THREADS = 2
_MAX_WAITING = 64
_MAX_REMEMBERED = 64
_TRIED_BYTES = 2048  # no grammar that is shorter has taken a second, or nests deep
_MAX_REASON = 300  # characters of llguidance's reason that an error repeats


class GrammarCompiler:
    """The grammars of one model. Safe to use from several threads.

    Args:
        tokenizer: the model's.
        manifest: for the size of its logits and its end-of-sequence ids.
    """

    def __init__(self, tokenizer: Tokenizer, manifest: Manifest) -> None:
        self._tokenizer = tokenizer
        self._manifest = manifest
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cupola-grammar")
        self._lock = threading.Lock()
        self._grammars: OrderedDict[GrammarSpec, Future[CompiledGrammar]] = OrderedDict()
        self._waiting = 0
        self._native: GrammarTokenizer | None = None
        self._trial: GrammarTrial | None = None
        self._native_lock = threading.Lock()
        self._trial_lock = threading.Lock()

    async def compile(self, spec: GrammarSpec) -> CompiledGrammar:
        """The compiled grammar, without blocking the event loop.

        Raises:
            RequestError: it is not a grammar, is too large, or took too long.
            OverloadedError: too many grammars wait to be compiled.
            EngineError: llguidance is missing.
        """
        future = self._begin(spec)
        if future.done():
            return future.result()
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), COMPILE_SECONDS)
        except TimeoutError:
            raise self._too_long(spec) from None

    def compile_now(self, spec: GrammarSpec) -> CompiledGrammar:
        """The same, waiting for it. Raises as `compile`."""
        try:
            return self._begin(spec).result(COMPILE_SECONDS)
        except TimeoutError:
            raise self._too_long(spec) from None

    def close(self) -> None:
        """Take no more grammars. Those compiled stay good."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        # A trial that runs ends within seconds, and its process with the pipe.
        if self._trial_lock.acquire(blocking=False):
            try:
                if self._trial is not None:
                    self._trial.close()
            finally:
                self._trial_lock.release()

    def _begin(self, spec: GrammarSpec) -> Future[CompiledGrammar]:
        check_grammar(spec)
        with self._lock:
            future = self._grammars.get(spec)
            if future is not None:
                self._grammars.move_to_end(spec)
                return future
            if self._waiting >= _MAX_WAITING:
                raise OverloadedError(f"{self._waiting} grammars wait to be compiled already", hint="Try again later.")
            future = self._grammars[spec] = self._threads.submit(self._compile, spec)
            self._waiting += 1
            if len(self._grammars) > _MAX_REMEMBERED:
                self._grammars.popitem(last=False)
        future.add_done_callback(lambda done: self._note_done(spec, done))
        return future

    def _note_done(self, spec: GrammarSpec, future: Future[CompiledGrammar]) -> None:
        with self._lock:
            self._waiting -= 1
            if (future.cancelled() or future.exception()) and self._grammars.get(spec) is future:
                del self._grammars[spec]

    def _compile(self, spec: GrammarSpec) -> CompiledGrammar:
        kind, text = llguidance_form(spec)
        tokenizer = self._grammar_tokenizer()
        try:
            if len(text) > _TRIED_BYTES:
                self._try(kind, text)
            return CompiledGrammar(spec, tokenizer.compile(kind, text))
        except ValueError as error:
            raise refused(spec, _reason(str(error))) from None

    def _grammar_tokenizer(self) -> GrammarTokenizer:
        with self._native_lock:
            if self._native is None:
                self._native = GrammarTokenizer(self._vocabulary(), self._manifest.special_ids.eos)
            return self._native

    def _try(self, kind: str, text: str) -> None:
        with self._trial_lock:
            if self._trial is None:
                self._trial = GrammarTrial(self._vocabulary(), self._manifest.special_ids.eos)
            self._trial.check(kind, text)

    def _vocabulary(self) -> Vocabulary:
        return read_vocabulary(self._tokenizer, self._manifest.shape.vocab_size)

    def _too_long(self, spec: GrammarSpec) -> Exception:
        return refused(spec, f"it was not compiled within {COMPILE_SECONDS:.0f} s", "Make the grammar simpler.")


def _reason(message: str) -> str:
    """llguidance's message in a line: without its marks, and short enough for an answer."""
    if message.startswith("NoExtensionBias"):
        return "no text can follow it"
    if message.startswith("panic"):
        return "it is too large or too deeply nested"
    line = " ".join(message.replace("<non-verbose/>", "").split())
    return line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}..."
