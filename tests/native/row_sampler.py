"""The C++ sample stage on rows of logits, and the same in NumPy: what a request may ask of its logits, written plainly.

The stage gets the rows one after the other, and takes every token that it samples for the next.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cupola.engine.native import native
from cupola.engine.packing import pack_request
from cupola.engine.request import GenerateRequest, SamplingParams, TokenLogprob

BANNED = -np.inf


@dataclass(frozen=True)
class Sampled:
    """What the stage gave."""

    tokens: list[int]
    logprobs: list[list[TokenLogprob]]  # one list for each token, if asked for
    error: str


def request_of(
    sampling: SamplingParams,
    prompt: Sequence[int] = (0,),
    stop: Sequence[int] = (),
    bad_words: Sequence[Sequence[int]] = (),
) -> GenerateRequest:
    """A request as the engine gets it."""
    return GenerateRequest(1, tuple(prompt), sampling, tuple(stop), tuple(tuple(word) for word in bad_words))


def sample_rows(request: GenerateRequest, rows: np.ndarray) -> Sampled:
    """Sample from float32 rows [k, vocab], in this order; the rows themselves are left as they are."""
    tokens, packed, error = native("testing.sample_rows")(pack_request(request), np.array(rows, np.float32))
    entries = [TokenLogprob(*entry) for entry in struct.iter_unpack("<ifi", packed)]
    width = len(entries) // max(1, len(tokens))
    positions = [entries[i : i + width] for i in range(0, len(entries), width)] if width else []
    return Sampled(list(tokens), positions, str(error))


def processed(request: GenerateRequest, row: np.ndarray, generated: Sequence[int]) -> np.ndarray:
    """The row (float64) as the request wants it after `generated`; -inf where a token must not come."""
    sampling, tokens = request.sampling, [*request.token_ids, *generated]
    logits = row.astype(np.float64)
    for token, bias in sampling.logit_bias.items():
        logits[token] += bias
    for token in set(tokens):
        logits[token] *= sampling.repetition_penalty if logits[token] < 0 else 1 / sampling.repetition_penalty
    for token, count in Counter(generated).items():
        logits[token] -= sampling.presence_penalty + sampling.frequency_penalty * count
    if sampling.allowed_token_ids:
        others = np.setdiff1d(np.arange(len(logits)), sampling.allowed_token_ids)
        logits[others] = BANNED
    for *start, last in request.bad_words:
        if tokens[len(tokens) - len(start) :] == start:
            logits[last] = BANNED
    if len(generated) < sampling.min_tokens:
        logits[list(request.stop_token_ids)] = BANNED
    return logits


def log_softmax(rows: np.ndarray) -> np.ndarray:
    """In float64, along the last axis."""
    shifted = rows.astype(np.float64) - rows.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
