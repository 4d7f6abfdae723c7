"""`POST /v1/rerank`: documents in the order of their relevance. The shape is in `protocol/rerank.py`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cupola.engine.reranking import PairOptions
from cupola.protocol.embeddings import EmbeddingUsage
from cupola.protocol.rerank import RerankList, RerankRequest, RerankResult
from cupola.server.body import parse_body
from cupola.server.connection import until_disconnect
from cupola.server.identity import Identity
from cupola.server.json_response import json_response
from cupola.server.record import record_of
from cupola.server.served_encoder import ServedEncoder
from cupola.server.services import Services


async def rerank(services: Services, request: Request) -> Response:
    """Documents in the order of their relevance to a query: by a reranker, or by the cosine of embeddings."""
    body = await parse_body(request, RerankRequest)
    model = await services.encoder(request, body.model, "rerank")
    answer = await until_disconnect(request, create_rerank(model, body))
    record_of(request.scope).prompt_tokens = answer.usage.prompt_tokens
    return json_response(answer.model_dump_json(exclude_none=True).encode())


async def create_rerank(model: ServedEncoder, body: RerankRequest) -> RerankList:
    """The same without HTTP. CupolaError: a document does not fit, or the engine failed."""
    options = PairOptions(body.truncate_prompt_tokens, body.max_tokens_per_doc, body.use_activation, "documents")
    every = await model.engine.rerank(body.query, [document.text for document in body.documents], options=options)
    shown = body.documents if body.return_documents is not False else None
    tokens = sum(one.num_tokens for one in every)
    return RerankList(
        id=Identity.new("rerank", model.name).id,
        model=model.name,
        results=tuple(
            RerankResult(
                index=one.index, relevance_score=one.score, document=None if shown is None else shown[one.index]
            )
            for one in every[: body.top_n]
        ),
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )
