"""`POST /v1/score`: what a model thinks of given continuations, or how well two texts fit each other.

The shapes are in `protocol/score.py` and `protocol/similarity.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from cupola.engine.output import Score
from cupola.engine.reranking import PairOptions
from cupola.errors import RequestError
from cupola.protocol.embeddings import EmbeddingUsage
from cupola.protocol.generation import Usage
from cupola.protocol.score import ScoredContinuation, ScoreList, ScoreRequest
from cupola.protocol.similarity import AnyScoreRequest, PairScore, SimilarityList, SimilarityRequest
from cupola.server.body import parse_body
from cupola.server.connection import until_disconnect
from cupola.server.identity import Identity
from cupola.server.json_response import json_response
from cupola.server.logprobs import content_logprobs
from cupola.server.record import record_of
from cupola.server.sampling import request_options
from cupola.server.served_encoder import ServedEncoder
from cupola.server.served_model import ServedModel
from cupola.server.services import Services


async def score(services: Services, request: Request) -> Response:
    """Log-probabilities of continuations of a prompt; or, of pairs of texts, how well they fit each other."""
    body = (await parse_body(request, AnyScoreRequest)).root
    answer: ScoreList | SimilarityList
    if isinstance(body, SimilarityRequest):
        encoder = await services.encoder(request, body.model, "rerank")
        answer = await until_disconnect(request, create_similarity(encoder, body))
    else:
        answer = await until_disconnect(request, create_score(await services.model(request, body.model), body))
    record = record_of(request.scope)
    record.prompt_tokens = answer.usage.prompt_tokens
    return json_response(answer.model_dump_json().encode())


async def create_score(model: ServedModel, body: ScoreRequest) -> ScoreList:
    """The same without HTTP.

    Raises:
        ApiError: the model's name is not served.
        CupolaError: the request does not fit, or the engine failed.
    """
    model.check_name(body.model)
    model.engine.check_room()
    prompt = body.prompt_token_ids if body.prompt is None else body.prompt
    assert prompt is not None, "the request's own check demands one"
    try:
        scores = await model.engine.score(prompt, body.continuations, request_options(body), top=body.top_logprobs or 0)
    except RequestError as error:
        error.param = "continuations" if error.param == "max_tokens" else error.param
        raise
    identity = Identity.new("score", model.name)
    return ScoreList(
        id=identity.id,
        created=identity.created,
        model=identity.model,
        data=tuple(_continuation(index, one) for index, one in enumerate(scores)),
        usage=_usage(scores),
    )


async def create_similarity(model: ServedEncoder, body: SimilarityRequest) -> SimilarityList:
    """The scores of pairs of texts, without HTTP. CupolaError: a pair does not fit, or the engine failed."""
    options = PairOptions(body.truncate_prompt_tokens, None, body.use_activation, "text_2")
    found = await model.engine.similarity(body.pairs, options)
    identity, tokens = Identity.new("score", model.name), sum(one.num_tokens for one in found)
    return SimilarityList(
        id=identity.id,
        created=identity.created,
        model=identity.model,
        data=tuple(PairScore(index=i, score=one.score) for i, one in enumerate(found)),
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def _continuation(index: int, one: Score) -> ScoredContinuation:
    content = content_logprobs(one.positions)
    return ScoredContinuation(
        index=index,
        token_ids=one.token_ids,
        logprobs=tuple(entry.logprob for entry in content),
        sum=one.total,
        is_greedy=one.is_greedy,
        content=content,
    )


def _usage(scores: Sequence[Score]) -> Usage:
    """Every continuation is a request of its own, and its prompt counts as such."""
    prompt = sum(one.usage.prompt_tokens for one in scores)
    return Usage.of(prompt, 0, sum(one.usage.cached_tokens for one in scores))
