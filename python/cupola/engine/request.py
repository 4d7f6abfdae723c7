"""What passes between the text layers and the engine: frozen values, token ids only.

`GenerateRequest` goes down, `Delta` comes up. Nothing here knows text, JSON or HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal, NamedTuple

from cupola.engine.grammar import CompiledGrammar, GrammarSpec

MAX_LOGPROBS = 20
"""The most probable tokens that a request may have reported beside each token, at most."""


AdmissionPolicy = Literal["predicted", "conservative", "optimistic"]
"""When a request may join those that run; see `EngineConfig.admission`."""


class FinishReason(str, Enum):
    """Why a request ended. The names are OpenAI's where OpenAI has one."""

    STOP = "stop"  # a stop id, or a stop string found by the text layer
    LENGTH = "length"  # max_tokens, or the end of the context
    ABORT = "abort"  # the caller went away
    DEADLINE = "deadline"  # it was not done in time
    REFUSED = "refused"  # what it asks for cannot be, which only its run has shown; `Delta.error` says why
    ERROR = "error"  # the engine failed; `Delta.error` says how


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token of one request is chosen.

    Args:
        temperature: 0 is greedy; else the logits are divided by it (0 to 2).
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches top_p (0 < top_p <= 1).
        min_p: drop tokens less probable than min_p times the best one (0 to 1).
        seed: the random numbers of a request depend on (seed, position) only; None draws one.
        max_tokens: most tokens to generate; None means up to the end of the context, 0 only reads the prompt.
        min_tokens: no stop id ends the request before that many tokens.
        stop: strings that end the text; they are not part of it (found by the text layer).
        shown_ids: special tokens that are part of the text, as the vocabulary writes them; the others have none.
        stop_token_ids: ids that end the request, beside the model's own end-of-sequence ids.
        ignore_eos: generate past the model's end-of-sequence ids.
        presence_penalty: subtracted from the logit of every token that was generated already (-2 to 2).
        frequency_penalty: likewise, once for each time that it was generated (-2 to 2).
        repetition_penalty: the logit of every token of prompt and output is divided by it where it is positive, and
            multiplied where it is negative (above 0, up to 10); 1 changes nothing.
        logit_bias: token id -> number added to its logit (-100 to 100).
        allowed_token_ids: if not empty, no other token is generated.
        bad_words: texts, or sequences of token ids, that are not generated: the last token of one is banned where the
            others stand before it, in the prompt or in the output.
        logprobs: report the log-probability of every generated token, and of that many of the most probable ones
            beside it (0 to 20); None reports nothing.
        prompt_logprobs: the same for the tokens of the prompt.
        prompt_logprobs_from: the first position of the prompt that is reported so; the first token of all, at
            position 0, has no log-probability.
        grammar: what the whole text must look like; it wins over min_tokens and ignore_eos. None: anything.

    Log-probabilities are those of the model's own distribution. The logits of a row change in this order: bias,
    penalties, allowed ids, bad words, min_tokens, grammar; temperature; top_k, top_p, min_p.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    shown_ids: tuple[int, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str | tuple[int, ...], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    prompt_logprobs_from: int = 1
    grammar: GrammarSpec | None = None

    def choices(self, count: int) -> tuple[SamplingParams, ...]:
        """One for each of `count` answers to one prompt: they differ in their seeds, `seed + i`, and nothing else."""
        if self.seed is None:
            return (self,) * count
        # Seeds are 64-bit numbers: the one after the last is the first.
        return tuple(replace(self, seed=(self.seed + i + 2**63) % 2**64 - 2**63) for i in range(count))


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How the engine treats a request, whatever it generates.

    Args:
        priority: larger is served first.
        timeout: seconds from now until the request is ended, finished or not; None waits for ever.
        cache_salt: only requests with the same salt share pages of the prefix cache.
        pin_prefix: True keeps the pages of the prompt in the prefix cache, False lets those go that a request with
            this prompt and salt kept; None does neither.
    """

    priority: int = 0
    timeout: float | None = None
    cache_salt: str | None = None
    pin_prefix: bool | None = None


PLAIN = RequestOptions()


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to generate: the native form that the scheduler sees.

    Args:
        id: unique among the live requests of one engine.
        token_ids: the prompt, at least one id.
        sampling: how to choose tokens; `seed` and `max_tokens` are already resolved (not None).
        stop_token_ids: every id that ends it: the model's own (unless ignore_eos) and the caller's.
        bad_words: the bad words of `sampling` as token ids.
        priority: larger is served first; first come, first served within one priority.
        logprobs_from: first position of the prompt whose log-probability is wanted, at least 1; None: of none.
        cache_seed: requests of different seeds (64 bits) share no page of the prefix cache.
        pin_prefix: keep the pages of the prompt in the prefix cache.
        deadline: `time.monotonic()` at which the request is ended; None: never.
        grammar: the grammar of `sampling`, compiled.
    """

    id: int
    token_ids: tuple[int, ...]
    sampling: SamplingParams
    stop_token_ids: tuple[int, ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    priority: int = 0
    logprobs_from: int | None = None
    cache_seed: int = 0
    pin_prefix: bool = False
    deadline: float | None = None
    grammar: CompiledGrammar | None = None


class TokenLogprob(NamedTuple):
    """A token at one position and its log-probability, by the raw logits: before temperature, bias and penalties.

    Args:
        token_id: the token.
        logprob: natural logarithm of its probability.
        rank: 1 for the token that greedy decoding takes, 2 for the next.
    """

    token_id: int
    logprob: float
    rank: int


PositionLogprobs = tuple[TokenLogprob, ...]
"""One position: the token that stands there, then the most probable ones, best first, as many as were asked for."""


class Delta(NamedTuple):
    """What one engine step did to one request. A tuple: there is one for every token, and tuples are made faster.

    `token_ids` are new tokens, in order; a stop id is counted in `usage` but not among them.
    A request's last delta, and only that one, has a `finish_reason`.

    Args:
        logprobs: one for each of `token_ids`, or one for the stop id that ended it, if the request asked for them.
        prompt_logprobs: of the next positions of the prompt, from `logprobs_from` on.
        num_cached: tokens of the prompt that were found in the prefix cache; set in one delta of a request.
    """

    request_id: int
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    error: str | None = None
    logprobs: tuple[PositionLogprobs, ...] = ()
    prompt_logprobs: tuple[PositionLogprobs, ...] = ()
    num_cached: int | None = None


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes of one native engine.

    Args:
        num_pages: pages of the KV pool; each holds `page_size` token slots.
        num_window_pages: of these, for how many there is room in layers that see only a window of the context.
        page_size: token slots a page.
        max_batch: most sequences that run at once (rows with logits in a step).
        max_step_tokens: token budget of one step (decodes and prefill chunks together).
        max_context: most tokens (prompt and output) of one sequence.
        max_queue: most requests waiting; beyond it `add` raises OverloadedError.
        num_threads: most threads of the compiled library; 0 means one a core.
        bind_threads: keep each of them on a core of its own.
        spin_us: microseconds for which they spin for the next step before they sleep.
        prefix_cache: computed pages are found again by their tokens.
        admission: what is expected of those that run when one more wants to. predicted: outputs as long as those
            before (LightLLM's past-future estimate); conservative: as long as they may become, so that nobody is
            preempted; optimistic: hardly any more.
        prefill_rows: most rows of prompts in a step beside streams; 0 takes as many as the time between two tokens
            of a stream allows, learnt from how long steps take.
        pages_bound: why there are no more pages, where it is the device that has no larger tensors; else "".
    """

    num_pages: int
    page_size: int = 16
    max_batch: int = 64
    max_step_tokens: int = 512
    max_context: int = 2048
    max_queue: int = 1024
    num_threads: int = 0
    bind_threads: bool = False
    spin_us: int = 1000
    prefix_cache: bool = True
    admission: AdmissionPolicy = "predicted"
    prefill_rows: int = 0
    num_window_pages: int = 0
    pages_bound: str = ""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot of the engine's counters and gauges.

    Args:
        pages_free: pages that no request and no pin holds; some of them may be cached.
        pages_cached: pages that the prefix cache knows, held or not.
        prefix_queries: tokens of prompts that were looked up in the prefix cache.
        prefix_hits: and of these, found.
        prefix_evictions: pages that the cache forgot to make room.
        last_step_age: seconds since the engine thread last gave a sign of life.
    """

    running: int = 0
    waiting: int = 0
    pages_total: int = 0
    pages_free: int = 0
    steps: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    expired: int = 0
    pages_cached: int = 0
    pages_pinned: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prefix_evictions: int = 0
    step_seconds: float = 0.0
    last_step_age: float = 0.0
