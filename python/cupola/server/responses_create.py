"""`POST /v1/responses` and `POST /v1/responses/input_tokens`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from cupola.errors import RequestError
from cupola.protocol.conversation import Conversation
from cupola.protocol.errors import ApiError
from cupola.protocol.generation import Usage
from cupola.protocol.responses import ContextFields, InputTokensRequest, ResponseRequest
from cupola.protocol.responses_conversation import conversation_of, in_words_of_items, num_turns, without_turns
from cupola.protocol.responses_items import Item, ItemReference, with_id
from cupola.protocol.responses_object import InputTokens, ResponseObject
from cupola.server.answer import stream, whole
from cupola.server.auth import owner_of
from cupola.server.body import parse_body
from cupola.server.json_response import json_response
from cupola.server.reply import Reply, ReplyDelta, open_reply
from cupola.server.responses_frames import ResponseFrames
from cupola.server.responses_run import ResponseRun, RunningResponse
from cupola.server.responses_store import ResponseStore, StoredResponse
from cupola.server.served_model import ServedModel
from cupola.server.services import Services

_PARAM_NAMES = {"prompt": "input", "max_tokens": "max_output_tokens"}
_ANSWER_SHARE = 4  # of the context, one part in so many is left to an answer without `max_output_tokens`


@dataclass(frozen=True, slots=True)
class _Input:
    """What the model reads.

    Args:
        parent: the response before this one.
        prior: what was said up to and with it.
        new: the request's own items, each with an id.
    """

    parent: StoredResponse | None
    prior: tuple[Item, ...]
    new: tuple[Item, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """All of it."""
        return self.prior + self.new

    def in_words(self, error: RequestError, body: ContextFields) -> RequestError:
        """An error about the conversation, with the names of this endpoint's fields."""
        return in_words_of_items(error, body, self.items, len(self.prior))


async def create_response(services: Services, request: Request) -> Response:
    """Answers an input, whole or as a stream of events, and keeps the response unless `store` is false."""
    body = await parse_body(request, ResponseRequest)
    model = await services.model(request, body.model)
    owner = owner_of(request.scope)
    said = _read(services.responses, owner, body)
    run = ResponseRun(await _open(model, body, said), lambda error: said.in_words(error, body))
    defaults = model.engine.default_params

    def keep(response: ResponseObject) -> None:
        if response.store:
            services.responses.put(owner, response, said.new, said.parent)

    begun = ResponseObject.begun(body, model.name, defaults.temperature, defaults.top_p)
    frames = ResponseFrames(begun, summarized=body.summarized, with_logprobs=body.wants_logprobs, on_end=keep)
    if not body.stream:
        return await whole(request, run, lambda found, usage: _whole(frames, found[0], usage))
    streamed = await stream(request, run, frames)
    if begun.store:
        services.running_responses.show((owner, begun.id), RunningResponse(run, frames))
    return streamed


async def count_input_tokens(services: Services, request: Request) -> Response:
    """Counts the tokens that an input would have, with its instructions and tools."""
    body = await parse_body(request, InputTokensRequest)
    model = await services.model(request, body.model)
    said = _read(services.responses, owner_of(request.scope), body)
    try:
        conversation = conversation_of(body, said.items)
        conversation.validate()
        tokens = await model.tokenize_chat(conversation)
    except RequestError as error:
        raise said.in_words(error, body) from error
    return json_response(InputTokens(input_tokens=len(tokens)).model_dump_json().encode())


def _whole(frames: ResponseFrames, deltas: Sequence[ReplyDelta], usage: Usage) -> ResponseObject:
    for delta in deltas:
        frames.more(0, delta)
        frames.finish(0, delta)
    frames.usage(usage)
    return frames.response


def _read(store: ResponseStore, owner: str, body: ContextFields) -> _Input:
    """Finds what the request only names."""
    parent = None
    if body.previous_response_id is not None:
        parent = store.find(owner, body.previous_response_id)
        if parent is None:
            message = f"Previous response with id `{body.previous_response_id}` not found."
            raise ApiError(400, message, code="previous_response_not_found", param="previous_response_id")
    new = tuple(_resolved(store, owner, index, item) for index, item in enumerate(body.input or ()))
    return _Input(parent, () if parent is None else parent.context, new)


def _resolved(store: ResponseStore, owner: str, index: int, item: Item | ItemReference) -> Item:
    if not isinstance(item, ItemReference):
        return with_id(item)
    found = store.find_item(owner, item.id)
    if found is None:
        raise ApiError(404, f"Item with id `{item.id}` not found.", code="item_not_found", param=f"input.{index}")
    return found


async def _open(model: ServedModel, body: ResponseRequest, said: _Input) -> Reply:
    try:
        conversation = conversation_of(body, said.items)
        reply = await _reply(model, body, conversation)
        if body.truncation == "auto":
            return await _truncated(model, body, conversation, reply)
    except RequestError as error:
        raise said.in_words(error, body) from error
    return reply


async def _truncated(model: ServedModel, body: ResponseRequest, conversation: Conversation, reply: Reply) -> Reply:
    """Without as few of the oldest turns as will do; the last turn stays, whether it fits or not."""
    context = model.engine.config.max_context
    room = context - (body.max_output_tokens or context // _ANSWER_SHARE)
    if len(reply.jobs[0].prompt) <= room:
        return reply
    fewest, most = 1, num_turns(conversation) - 1
    while fewest <= most:
        count = (fewest + most) // 2
        shorter = await _reply(model, body, without_turns(conversation, count))
        if len(shorter.jobs[0].prompt) <= room:
            reply, most = shorter, count - 1
        else:
            fewest = count + 1
    return reply


async def _reply(model: ServedModel, body: ResponseRequest, conversation: Conversation) -> Reply:
    grammar = {} if body.response_format is None else {"grammar": "text.format"}
    return await open_reply(model, conversation, body.generation_fields, _PARAM_NAMES | grammar)
