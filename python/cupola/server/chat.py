"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from cupola.protocol.chat import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatCompletionRequest,
    FunctionCall,
    ToolCallItem,
)
from cupola.protocol.conversation import Message
from cupola.protocol.generation import Usage
from cupola.server.answer import stream, whole
from cupola.server.body import parse_body
from cupola.server.frames import ChoiceFrames, ids_field
from cupola.server.identity import Identity
from cupola.server.logprobs import chat_logprobs, prompt_logprobs
from cupola.server.reply import Answer, Reply, ReplyDelta, open_reply
from cupola.server.served_model import ServedModel
from cupola.server.services import Services
from cupola.text.reply_parser import ContentDelta, ReasoningDelta, ReplyEvent, ToolCallArguments, ToolCallBegin


async def chat_completions(services: Services, request: Request) -> Response:
    """Continues a conversation, whole or as a stream."""
    body = await parse_body(request, ChatCompletionRequest)
    model = await services.model(request, body.model)
    reply = await _open(model, body)
    identity = Identity.new("chatcmpl", model.name)
    if body.stream:
        return await stream(request, reply, ChatFrames(identity, body, reply))
    return await whole(request, reply, lambda answers, usage: _completion(identity, body, reply, answers, usage))


async def create_chat_completion(model: ServedModel, body: ChatCompletionRequest) -> ChatCompletion:
    """The same without HTTP, always whole.

    Raises:
        ApiError: the model's name is not served.
        CupolaError: the request does not fit, or the engine failed.
    """
    model.check_name(body.model)
    async with await _open(model, body) as reply:
        answers = await reply.answers()
    return _completion(Identity.new("chatcmpl", model.name), body, reply, answers, reply.usage)


class ChatFrames(ChoiceFrames):
    """`chat.completion.chunk` frames."""

    def __init__(self, identity: Identity, body: ChatCompletionRequest, reply: Reply) -> None:
        super().__init__(b"chat.completion.chunk", identity, body.include_usage)
        self._with_logprobs = body.output_logprobs is not None
        self._with_ids = bool(body.return_token_ids)
        self._jobs = reply.jobs

    def begin(self, index: int) -> bytes:
        ids = ids_field(b"prompt_token_ids", self._jobs[index].prompt) if self._with_ids and index == 0 else b""
        return self.with_choice(_choice(index, b'{"role":"assistant","content":""}'), ids)

    def more(self, index: int, delta: ReplyDelta) -> bytes:
        told = [_delta(event) for event in delta.events]
        told = [part for part in told if part]
        if self._with_logprobs or self._with_ids:
            return self._with_tokens(index, delta, told) if told or delta.token_ids else b""
        return b"".join(self.with_choice(_choice(index, part)) for part in told)

    def _with_tokens(self, index: int, delta: ReplyDelta, told: list[bytes]) -> bytes:
        """The tokens go with the first frame of what they made, or with one of their own."""
        logprobs = chat_logprobs(delta.logprobs).model_dump_json().encode() if self._with_logprobs else b"null"
        ids = ids_field(b"token_ids", delta.token_ids) if self._with_ids else b""
        first, *others = told or [_NOTHING]
        frames = [self.with_choice(_choice(index, first, logprobs, extra=ids))]
        return b"".join([*frames, *(self.with_choice(_choice(index, part)) for part in others)])

    def finish(self, index: int, delta: ReplyDelta) -> bytes:
        return b"" if delta.finish is None else self.with_choice(_choice(index, b"{}", reason=to_json(delta.finish)))


_NOTHING = b'{"content":""}'


def _delta(event: ReplyEvent) -> bytes:
    """The `delta` of an event; empty where the client is told nothing."""
    if isinstance(event, ContentDelta):
        return b'{"content":%b}' % to_json(event.text)
    if isinstance(event, ReasoningDelta):
        return b'{"reasoning_content":%b}' % to_json(event.text)
    if isinstance(event, ToolCallBegin):
        call = (event.index, to_json(event.id), to_json(event.name))
        return b'{"tool_calls":[{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":""}}]}' % call
    if isinstance(event, ToolCallArguments):
        return b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (event.index, to_json(event.text))
    return b""


def _choice(index: int, delta: bytes, logprobs: bytes = b"null", reason: bytes = b"null", extra: bytes = b"") -> bytes:
    fields = (index, delta, logprobs, reason, extra)
    return b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b%b}' % fields


async def _open(model: ServedModel, body: ChatCompletionRequest) -> Reply:
    limit = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    return await open_reply(model, body.conversation, body, {"max_tokens": limit})


def _completion(
    identity: Identity, body: ChatCompletionRequest, reply: Reply, answers: Sequence[Answer], usage: Usage
) -> ChatCompletion:
    return ChatCompletion(
        id=identity.id,
        created=identity.created,
        model=identity.model,
        choices=tuple(_whole_choice(index, body, answer) for index, answer in enumerate(answers)),
        usage=usage,
        prompt_token_ids=tuple(reply.jobs[0].prompt) if body.return_token_ids else None,
        prompt_logprobs=None if body.prompt_logprobs is None else prompt_logprobs(answers[0].prompt_logprobs),
    )


def _whole_choice(index: int, body: ChatCompletionRequest, answer: Answer) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=_assistant_message(answer.message),
        logprobs=None if body.output_logprobs is None else chat_logprobs(answer.logprobs),
        finish_reason=answer.finish,
        token_ids=answer.token_ids if body.return_token_ids else None,
    )


def _assistant_message(message: Message) -> AssistantMessage:
    calls = tuple(
        ToolCallItem(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))
        for call in message.tool_calls
    )
    return AssistantMessage(
        content=message.text or (None if calls else ""),
        reasoning_content=message.reasoning,
        tool_calls=calls or None,
    )
