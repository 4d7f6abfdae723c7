"""`POST /v1/embeddings`: vectors of texts. The shape is in `protocol/embeddings.py`."""

from __future__ import annotations

import asyncio
import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Literal

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from cupola.engine.embedding import Embedding
from cupola.protocol.embeddings import EmbeddingRequest, EmbeddingUsage
from cupola.server.body import parse_body
from cupola.server.connection import until_disconnect
from cupola.server.json_response import json_response
from cupola.server.record import record_of
from cupola.server.served_encoder import ServedEncoder
from cupola.server.services import Services

_ROWS_AT_ONCE = 32  # vectors written before others have a turn


async def embeddings(services: Services, request: Request) -> Response:
    """Embeddings of one or more texts, all computed together."""
    body = await parse_body(request, EmbeddingRequest)
    model = await services.encoder(request, body.model, "embeddings")
    found = await until_disconnect(request, create_embeddings(model, body))
    usage = usage_of(found)
    record_of(request.scope).prompt_tokens = usage.prompt_tokens
    return json_response(await response_body(found, body.encoding_format, model.name, usage))


async def create_embeddings(model: ServedEncoder, body: EmbeddingRequest) -> list[Embedding]:
    """The same without HTTP. CupolaError: an input does not fit, or the engine failed."""
    return await model.engine.embed(body.input, dimensions=body.dimensions, truncate=body.truncate_prompt_tokens)


def usage_of(found: Sequence[Embedding]) -> EmbeddingUsage:
    """The tokens of all inputs."""
    tokens = sum(one.num_tokens for one in found)
    return EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)


async def response_body(
    found: Sequence[Embedding], encoding: Literal["float", "base64"], model: str, usage: EmbeddingUsage
) -> bytes:
    """The JSON of an `EmbeddingList`. A large one takes a tenth of a second, so it is written in pieces."""
    rows: list[bytes] = []
    for index, one in enumerate(found):
        if index % _ROWS_AT_ONCE == _ROWS_AT_ONCE - 1:
            await asyncio.sleep(0)
        rows.append(b'{"object":"embedding","index":%d,"embedding":%b}' % (index, _written(one.vector, encoding)))
    tail = to_json({"model": model, "usage": usage.model_dump()})[1:]
    return b'{"object":"list","data":[%b],%b' % (b",".join(rows), tail)


def _written(vector: array[float], encoding: Literal["float", "base64"]) -> bytes:
    if encoding == "float":
        return to_json(vector.tolist())
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return b'"%b"' % base64.b64encode(vector.tobytes())
