"""`POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's API over the same replies as the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from cupola.errors import RequestError
from cupola.protocol.anthropic import (
    AnthropicMessage,
    MessagesContext,
    MessagesRequest,
    MessagesUsage,
    TokensCount,
)
from cupola.protocol.anthropic_conversation import blocks_of, conversation_of
from cupola.protocol.conversation import Conversation
from cupola.protocol.generation import Usage
from cupola.protocol.responses_items import new_id
from cupola.server.answer import stream, whole
from cupola.server.body import parse_body
from cupola.server.connection import until_disconnect
from cupola.server.json_response import json_response
from cupola.server.message_frames import MessageFrames, ending
from cupola.server.reply import Answer, Reply, open_reply, renamed
from cupola.server.served_model import ServedModel
from cupola.server.services import Services

_NAMES: Mapping[str, str] = {
    "stop": "stop_sequences",
    "grammar": "output_config.format",
    "thinking_token_budget": "thinking.budget_tokens",
}
_PLACE = re.compile(r"(messages|tools)\.(\d+)(.*)")


async def messages(services: Services, request: Request) -> Response:
    """Continues a conversation in Anthropic's shape, whole or as a stream."""
    body = await parse_body(request, MessagesRequest)
    model = await services.model(request, body.model)
    reply = await _open(model, body)
    message_id = new_id("msg")
    if body.stream:
        return await stream(request, reply, MessageFrames(message_id, model.name, body, reply))
    return await whole(request, reply, lambda answers, usage: _message(message_id, model, body, answers, usage))


async def count_tokens(services: Services, request: Request) -> Response:
    """How many tokens the prompt of a request has."""
    body = await parse_body(request, MessagesContext)
    model = await services.model(request, body.model)
    count = await until_disconnect(request, _count(model, body))
    return json_response(TokensCount(input_tokens=count).model_dump_json().encode())


async def _open(model: ServedModel, body: MessagesRequest) -> Reply:
    if body.messages[-1].role == "assistant":
        raise RequestError(
            "`messages` ends with a message of the assistant, and this server cannot continue it",
            param="messages",
            hint="end with a message of the user; ask for a form of the answer with `output_config.format`.",
        )
    conversation, fields = conversation_of(body)
    try:
        return await open_reply(model, conversation, body.generation_fields, _NAMES, clip=True)
    except RequestError as error:
        raise _placed(error, fields) from None


async def _count(model: ServedModel, body: MessagesContext) -> int:
    conversation, fields = conversation_of(body)
    try:
        conversation.validate()
        return len(await _tokenize(model, conversation))
    except RequestError as error:
        raise _placed(error, fields) from None


async def _tokenize(model: ServedModel, conversation: Conversation) -> list[int]:
    try:
        return await model.tokenize_chat(conversation)
    except RequestError as error:
        raise renamed(error, _NAMES) from None


def _placed(error: RequestError, fields: Sequence[str]) -> RequestError:
    """The error with the place in the request: a conversation counts its messages otherwise."""
    found = _PLACE.fullmatch(error.param or "")
    if found is None:
        return error
    kind, index, rest = found[1], int(found[2]), found[3]
    place = fields[index] if kind == "messages" else f"tools.{index}{rest.replace('.function', '')}"
    error.message = error.message.replace(f"`{error.param}`", f"`{place}`")
    error.param = place
    return error


def _message(
    message_id: str, model: ServedModel, body: MessagesRequest, answers: Sequence[Answer], usage: Usage
) -> AnthropicMessage:
    [answer] = answers
    reason, sequence = ending(answer, usage, body.max_tokens)
    return AnthropicMessage(
        id=message_id,
        model=model.name,
        content=blocks_of(answer.message, shown=body.thinking_is_shown),
        stop_reason=reason,
        stop_sequence=sequence,
        usage=MessagesUsage.of(usage),
    )
