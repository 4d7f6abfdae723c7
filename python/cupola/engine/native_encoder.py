"""Encoders and their runner as Python sees them: loading one, handing it jobs, taking vectors.

It turns frozen values into native arguments and native results into frozen values. It knows no text and no asyncio.
"""

from __future__ import annotations

import itertools
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cupola.engine.native_library import first_line, native
from cupola.engine.native_model import device_of, load_library
from cupola.engine.request import EngineConfig, EngineStats
from cupola.errors import EngineError, OverloadedError, RequestError
from cupola.manifest import Manifest

_QUEUE_FULL, _DRAINING, _TOO_LONG, _BAD_TOKEN = 1, 2, 3, 4
_DONE, _ABORTED = 0, 1


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """How one job ended.

    Args:
        job_id: which one.
        vectors: float32 [texts, dimensions] as bytes, row after row; empty unless it was done.
        error: why it failed; None if it did not.
        aborted: nobody computed it to its end.
    """

    job_id: int
    vectors: bytes
    error: str | None
    aborted: bool


class NativeEncoder:
    """A loaded encoder: what a NativeEmbedder runs. One runner at a time."""

    def __init__(self, handle: object, *, vocab_size: int) -> None:
        self.handle = handle
        self.vocab_size = vocab_size


def load_encoder(folder: Path, manifest: Manifest, config: EngineConfig) -> NativeEncoder:
    """Load the library of a compiled encoder, and its weights: mapped into memory, or copied to its device.

    Raises:
        IncompatibleError: the library was made by other versions than the installed ones.
        ModelError: a file is missing or is not what the manifest says.
    """
    classifier, embedding = manifest.classifier, manifest.embedding
    if classifier is not None:
        num_types, dimensions = 1 + classifier.pair_types, len(classifier.labels)
    else:
        assert embedding is not None, "the caller has looked at the model's task"
        num_types, dimensions = 1, embedding.dimensions
    handle = load_library(
        folder,
        manifest,
        "encoder.compiled",
        device_of(manifest),
        manifest.functions.embed,
        manifest.shape.vocab_size,
        num_types,
        dimensions,
        config.max_context,
        config.max_step_tokens,
        config.max_batch,
    )
    return NativeEncoder(handle, vocab_size=manifest.shape.vocab_size)


def scripted_encoder(
    *,
    vocab_size: int = 512,
    dimensions: int = 8,
    max_context: int = 64,
    max_step_tokens: int = 128,
    max_batch: int = 16,
    poison_id: int | None = None,
    fail_id: int | None = None,
    step_us: int = 0,
) -> NativeEncoder:
    """The deterministic encoder for tests; its rule is in cpp/model/scripted_encoder.h.

    Args:
        vocab_size, max_context, max_step_tokens, max_batch: its limits.
        dimensions: of a vector, at most 8.
        poison_id: a text with this token gets a vector of NaN.
        fail_id: a text with this token makes the step that it is in fail.
        step_us: microseconds that every step takes.
    """
    ids = [-1 if id_ is None else id_ for id_ in (poison_id, fail_id)]
    sizes = (vocab_size, dimensions, max_context, max_step_tokens, max_batch)
    handle = native("encoder.scripted")(*sizes, *ids, step_us)
    return NativeEncoder(handle, vocab_size=vocab_size)


class NativeEmbedder:
    """One thread over one encoder. Every method may be called from any thread.

    Every job that `add` accepted ends with exactly one EmbedResult, also when the thread fails or is closed.
    """

    def __init__(self, encoder: NativeEncoder, config: EngineConfig) -> None:
        """Start the thread; returns when the encoder is ready. EngineError: it cannot start."""
        try:
            self._handle = native("embedder.create")(
                encoder.handle, config.max_queue, config.num_threads, config.bind_threads, config.spin_us
            )
        except Exception as error:
            raise EngineError(f"the engine cannot start: {first_line(error)}") from error
        self._encoder, self._config = encoder, config
        # Also runs at interpreter exit: the thread must end before the interpreter's memory does.
        self._finalizer = weakref.finalize(self, native("embedder.close"), self._handle)

    @property
    def event_fd(self) -> int:
        """A descriptor that is readable when `take` has something, and when the thread died."""
        return int(native("embedder.event_fd")(self._handle))

    @property
    def alive(self) -> bool:
        """False once it has given up after repeated failures, or was closed."""
        return self._finalizer.alive and bool(native("embedder.alive")(self._handle))

    @property
    def failure(self) -> str | None:
        """Why it gave up."""
        return str(native("embedder.failure")(self._handle)) or None

    def add(self, job_id: int, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> None:
        """Queue the token ids of some texts, each of one token at least, and the types of these tokens (None: all 0).

        Raises:
            RequestError: a token id or type out of range, or a text that is too long.
            OverloadedError: the queue is full, or it drains.
            EngineError: it has failed or is closed.
        """
        tokens, offsets = array("i"), array("i", [0])
        try:
            for text in texts:
                tokens.extend(text)
                offsets.append(len(tokens))
        except OverflowError:
            raise self._bad_token() from None
        kinds = array("i") if types is None else array("i", itertools.chain.from_iterable(types))
        if types is not None and len(kinds) != len(tokens):
            raise ValueError(f"there are {len(tokens)} tokens, but {len(kinds)} types")
        refusal = native("embedder.add")(self._handle, job_id, tokens.tobytes(), kinds.tobytes(), offsets.tobytes())
        if refusal == _QUEUE_FULL:
            raise OverloadedError(f"{self._config.max_queue} requests are waiting already", hint="try again later")
        if refusal == _DRAINING:
            raise OverloadedError("the engine is shutting down and takes no new requests")
        if refusal == _TOO_LONG:
            raise RequestError(f"a text has no token, or more than {self._config.max_context}", param="input")
        if refusal == _BAD_TOKEN:
            raise self._bad_token()
        if refusal:
            raise EngineError(f"the engine has failed: {self.failure}" if self.failure else "the engine is closed")

    def abort(self, job_id: int) -> None:
        """End a job; nothing happens if it has ended already."""
        native("embedder.abort")(self._handle, job_id)

    def take(self) -> list[EmbedResult]:
        """Everything that ended since the last call, oldest first. Never blocks."""
        return [
            EmbedResult(int(job_id), bytes(vectors), None if end in (_DONE, _ABORTED) else str(error), end == _ABORTED)
            for job_id, end, error, vectors in native("embedder.take")(self._handle)
        ]

    def stats(self) -> EngineStats:
        """A snapshot of counters and gauges; tokens count as prompt tokens."""
        packed, step_seconds, age = native("embedder.stats")(self._handle)
        running, waiting, steps, tokens, finished, aborted, failed = memoryview(packed).cast("q")
        return EngineStats(
            running=running,
            waiting=waiting,
            steps=steps,
            prompt_tokens=tokens,
            finished=finished,
            aborted=aborted,
            failed=failed,
            step_seconds=step_seconds,
            last_step_age=age,
        )

    def drain(self) -> None:
        """Refuse new jobs from now on; those accepted run to their end. Returns at once."""
        native("embedder.drain")(self._handle)

    def close(self) -> None:
        """End every job, stop the thread and wait for it. `take` still works. May be called again."""
        self._finalizer()

    def _bad_token(self) -> RequestError:
        return RequestError(f"a text has token ids outside of 0 .. {self._encoder.vocab_size - 1}", param="input")
