"""`/tokenize`, `/detokenize`, `/tokenizer_info`, and how many tokens a chat request has. No engine is asked."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from cupola.engine.folder import special_token_names
from cupola.errors import RequestError
from cupola.protocol.chat import ChatCompletionRequest
from cupola.protocol.responses_object import InputTokens
from cupola.protocol.tokenization import DetokenizedText, DetokenizeRequest, TokenizeRequest, TokenizerInfo, Tokens
from cupola.server.body import parse_body
from cupola.server.connection import until_disconnect
from cupola.server.json_response import json_response
from cupola.server.served_engine import ServedEngine
from cupola.server.served_model import ServedModel
from cupola.server.services import Services
from cupola.text.detokenizer import Detokenizer
from cupola.text.tokenizer import Tokenizer


async def tokenize(services: Services, request: Request) -> Response:
    """The token ids of a text or of a conversation."""
    body = await parse_body(request, TokenizeRequest)
    model = await _model(services, request, body.model)
    ids = await until_disconnect(request, _ids(model, body))
    spelled = None
    if body.return_token_strs:
        spelled = tuple(model.engine.tokenizer.token(token_id) or "" for token_id in ids)
    return _json(Tokens(count=len(ids), max_model_len=model.max_model_len, tokens=tuple(ids), token_strs=spelled))


async def detokenize(services: Services, request: Request) -> Response:
    """The text of token ids."""
    body = await parse_body(request, DetokenizeRequest)
    model = await _model(services, request, body.model)
    return _json(DetokenizedText(prompt=_text(model.engine.tokenizer, body.tokens)))


async def tokenizer_info(services: Services, request: Request) -> Response:
    """The tokenizer's special tokens and the chat template of the first model, or of the one in the query `model`."""
    model = await _model(services, request, request.query_params.get("model"))
    names = special_token_names(model.engine.tokenizer, model.engine.manifest.special_ids)
    template = model.engine.chat_template
    return _json(
        TokenizerInfo(
            model_max_length=model.max_model_len,
            vocab_size=model.engine.tokenizer.vocab_size,
            bos_token=names.get("bos_token"),
            eos_token=names.get("eos_token"),
            pad_token=names.get("pad_token"),
            chat_template=None if template is None else template.source,
        )
    )


async def count_chat_tokens(services: Services, request: Request) -> Response:
    """Counts the tokens that the prompt of a chat request would have."""
    body = await parse_body(request, ChatCompletionRequest)
    model = await services.model(request, body.model)
    body.conversation.validate()
    ids = await until_disconnect(request, model.tokenize_chat(body.conversation))
    return _json(InputTokens(input_tokens=len(ids)))


async def _model(services: Services, request: Request, name: str | None) -> ServedEngine:
    return await services.take(request, services.shelf.names[0] if name is None else name, ServedEngine)


async def _ids(model: ServedEngine, body: TokenizeRequest) -> list[int]:
    if body.prompt is not None:
        return await model.engine.tokenize(body.prompt, add_special_tokens=body.add_special_tokens is not False)
    body.conversation.validate()
    if not isinstance(model, ServedModel):
        raise RequestError(f"the model `{model.name}` is an encoder and cannot chat", param="messages")
    return await model.tokenize_chat(body.conversation, add_generation_prompt=body.add_generation_prompt is not False)


def _text(tokenizer: Tokenizer, ids: tuple[int, ...]) -> str:
    for index, token_id in enumerate(ids):
        if tokenizer.token(token_id) is None:
            raise RequestError(f"`tokens.{index}`: there is no token {token_id}", param=f"tokens.{index}")
    detokenizer = Detokenizer(tokenizer, shown=tokenizer.special_ids)
    return detokenizer.push(ids).text + detokenizer.finish().text


def _json(value: BaseModel) -> Response:
    return json_response(value.model_dump_json().encode())
