"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from cupola.engine.output import Completion, TextDelta
from cupola.protocol.chat import AssistantMessage, ChatChoice, ChatCompletion, ChatCompletionRequest
from cupola.protocol.generation import Usage
from cupola.server.answer import stream, whole
from cupola.server.body import parse_body
from cupola.server.frames import ChoiceFrames, ids_field
from cupola.server.generation import Generation, Job, WireFinishReason, wire_reason
from cupola.server.identity import Identity
from cupola.server.logprobs import chat_logprobs, prompt_logprobs
from cupola.server.sampling import choice_sampling, request_options
from cupola.server.served_model import ServedModel
from cupola.server.services import Services
from cupola.server.structured import grammar_field


async def chat_completions(services: Services, request: Request) -> Response:
    """Continues a conversation, whole or as a stream."""
    body = await parse_body(request, ChatCompletionRequest)
    model = await services.model(request, body.model)
    generation = await _generation(model, body)
    identity = Identity.new("chatcmpl", model.name)
    if body.stream:
        return await stream(request, generation, ChatFrames(identity, body, generation.jobs))
    return await whole(
        request, generation, lambda found, usage: _completion(identity, body, generation.jobs, found, usage)
    )


async def create_chat_completion(model: ServedModel, body: ChatCompletionRequest) -> ChatCompletion:
    """The same without HTTP, always whole.

    Raises:
        ApiError: the model's name is not served.
        CupolaError: the request does not fit, or the engine failed.
    """
    async with await _generation(model, body) as generation:
        found = await generation.completions()
    return _completion(Identity.new("chatcmpl", model.name), body, generation.jobs, found, generation.usage)


class ChatFrames(ChoiceFrames):
    """`chat.completion.chunk` frames."""

    def __init__(self, identity: Identity, body: ChatCompletionRequest, jobs: Sequence[Job]) -> None:
        super().__init__(b"chat.completion.chunk", identity, body.include_usage)
        self._with_logprobs = body.output_logprobs is not None
        self._with_ids = bool(body.return_token_ids)
        self._jobs = jobs

    def begin(self, index: int) -> bytes:
        ids = ids_field(b"prompt_token_ids", self._jobs[index].prompt) if self._with_ids and index == 0 else b""
        return self.with_choice(_choice(index, b'{"role":"assistant","content":""}'), ids)

    def more(self, index: int, delta: TextDelta) -> bytes:
        if not delta.text and not (delta.token_ids and (self._with_logprobs or self._with_ids)):
            return b""
        logprobs = chat_logprobs(delta.logprobs).model_dump_json().encode() if self._with_logprobs else b"null"
        ids = ids_field(b"token_ids", delta.token_ids) if self._with_ids else b""
        return self.with_choice(_choice(index, b'{"content":' + to_json(delta.text) + b"}", logprobs, extra=ids))

    def finish(self, index: int, reason: WireFinishReason) -> bytes:
        return self.with_choice(_choice(index, b"{}", reason=to_json(reason)))


def _choice(index: int, delta: bytes, logprobs: bytes = b"null", reason: bytes = b"null", extra: bytes = b"") -> bytes:
    fields = (index, delta, logprobs, reason, extra)
    return b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b%b}' % fields


async def _generation(model: ServedModel, body: ChatCompletionRequest) -> Generation:
    model.check_name(body.model)
    prompt = await model.tokenize_chat(body.messages)
    options = request_options(body)
    jobs = [Job(0, prompt, sampling, options) for sampling in choice_sampling(body, model.engine.default_params)]
    limit = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    return Generation(model.engine, jobs, {"prompt": "messages", "max_tokens": limit, "grammar": grammar_field(body)})


def _completion(
    identity: Identity, body: ChatCompletionRequest, jobs: Sequence[Job], found: Sequence[Completion], usage: Usage
) -> ChatCompletion:
    return ChatCompletion(
        id=identity.id,
        created=identity.created,
        model=identity.model,
        choices=tuple(_whole_choice(index, body, completion) for index, completion in enumerate(found)),
        usage=usage,
        prompt_token_ids=tuple(jobs[0].prompt) if body.return_token_ids else None,
        prompt_logprobs=None if body.prompt_logprobs is None else prompt_logprobs(found[0].prompt_logprobs),
    )


def _whole_choice(index: int, body: ChatCompletionRequest, completion: Completion) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=AssistantMessage(content=completion.text),
        logprobs=None if body.output_logprobs is None else chat_logprobs(completion.logprobs),
        finish_reason=wire_reason(completion.finish_reason),
        token_ids=completion.token_ids if body.return_token_ids else None,
    )
