"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from cupola.protocol.chat import AssistantMessage, ChatChoice, ChatCompletion, ChatCompletionRequest
from cupola.protocol.generation import Usage
from cupola.server.answer import stream, whole
from cupola.server.body import parse_body
from cupola.server.frames import ChoiceFrames
from cupola.server.generation import Generation, Job, Text, WireFinishReason
from cupola.server.identity import Identity
from cupola.server.sampling import choice_sampling
from cupola.server.served_model import ServedModel
from cupola.server.services import Services


async def chat_completions(services: Services, request: Request) -> Response:
    """Continues a conversation, whole or as a stream."""
    body = await parse_body(request, ChatCompletionRequest)
    generation = await _generation(services.model, body)
    identity = Identity.new("chatcmpl", services.model.name)
    if body.stream:
        return await stream(request, generation, ChatFrames(identity, body.include_usage))
    return await whole(request, generation, lambda texts, usage: _completion(identity, texts, usage))


async def create_chat_completion(model: ServedModel, body: ChatCompletionRequest) -> ChatCompletion:
    """The same without HTTP, always whole.

    Raises:
        ApiError: the model's name is not served.
        CupolaError: the request does not fit, or the engine failed.
    """
    async with await _generation(model, body) as generation:
        texts = await generation.texts()
    return _completion(Identity.new("chatcmpl", model.name), texts, generation.usage)


class ChatFrames(ChoiceFrames):
    """`chat.completion.chunk` frames."""

    def __init__(self, identity: Identity, include_usage: bool) -> None:
        super().__init__(b"chat.completion.chunk", identity, include_usage)

    def begin(self, index: int) -> bytes:
        return self._frame(index, b'{"role":"assistant","content":""}', b"null")

    def text(self, index: int, text: str) -> bytes:
        return self._frame(index, b'{"content":' + to_json(text) + b"}", b"null")

    def finish(self, index: int, reason: WireFinishReason) -> bytes:
        return self._frame(index, b"{}", to_json(reason))

    def _frame(self, index: int, delta: bytes, reason: bytes) -> bytes:
        choice = b'{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}' % (index, delta, reason)
        return self.with_choice(choice)


async def _generation(model: ServedModel, body: ChatCompletionRequest) -> Generation:
    model.check_name(body.model)
    prompt = await model.tokenize_chat(body.messages)
    priority = body.priority or 0
    jobs = [Job(0, prompt, sampling, priority) for sampling in choice_sampling(body, model.engine.default_params)]
    limit = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    return Generation(model.engine, jobs, {"prompt": "messages", "max_tokens": limit})


def _completion(identity: Identity, texts: Sequence[Text], usage: Usage) -> ChatCompletion:
    choices = tuple(
        ChatChoice(index=index, message=AssistantMessage(content=text), finish_reason=reason)
        for index, (text, reason) in enumerate(texts)
    )
    return ChatCompletion(id=identity.id, created=identity.created, model=identity.model, choices=choices, usage=usage)
