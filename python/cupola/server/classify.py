"""`POST /classify`: the labels of texts. The shape is in `protocol/classification.py`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cupola.protocol.classification import ClassifyList, ClassifyRequest, LabelScores
from cupola.protocol.embeddings import EmbeddingUsage
from cupola.server.body import parse_body
from cupola.server.connection import until_disconnect
from cupola.server.identity import Identity
from cupola.server.json_response import json_response
from cupola.server.record import record_of
from cupola.server.served_encoder import ServedEncoder
from cupola.server.services import Services


async def classify(services: Services, request: Request) -> Response:
    """The scores of a classifier's labels for one or more texts."""
    body = await parse_body(request, ClassifyRequest)
    model = await services.encoder(request, body.model, "classify")
    answer = await until_disconnect(request, create_classification(model, body))
    record_of(request.scope).prompt_tokens = answer.usage.prompt_tokens
    return json_response(answer.model_dump_json().encode())


async def create_classification(model: ServedEncoder, body: ClassifyRequest) -> ClassifyList:
    """The same without HTTP. CupolaError: an input does not fit, or the engine failed."""
    found = await model.engine.classify(body.input, truncate=body.truncate_prompt_tokens, activate=body.use_activation)
    identity, tokens = Identity.new("classify", model.name), sum(one.num_tokens for one in found)
    return ClassifyList(
        id=identity.id,
        created=identity.created,
        model=identity.model,
        data=tuple(
            LabelScores(index=i, label=one.label, probs=one.scores, num_classes=len(one.scores))
            for i, one in enumerate(found)
        ),
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )
