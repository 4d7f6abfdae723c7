"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from cupola.protocol.completions import Completion, CompletionChoice, CompletionRequest
from cupola.protocol.generation import Usage
from cupola.server.answer import stream, whole
from cupola.server.body import parse_body
from cupola.server.frames import ChoiceFrames
from cupola.server.generation import Generation, Job, Text, WireFinishReason
from cupola.server.identity import Identity
from cupola.server.sampling import choice_sampling
from cupola.server.served_model import ServedModel
from cupola.server.services import Services


async def completions(services: Services, request: Request) -> Response:
    """Continues texts, whole or as a stream."""
    body = await parse_body(request, CompletionRequest)
    generation = await _generation(services.model, body)
    identity = Identity.new("cmpl", services.model.name)
    if body.stream:
        return await stream(request, generation, CompletionFrames(identity, body.include_usage))
    return await whole(request, generation, lambda texts, usage: _completion(identity, texts, usage))


async def create_completion(model: ServedModel, body: CompletionRequest) -> Completion:
    """The same without HTTP, always whole.

    Raises:
        ApiError: the model's name is not served.
        CupolaError: the request does not fit, or the engine failed.
    """
    async with await _generation(model, body) as generation:
        texts = await generation.texts()
    return _completion(Identity.new("cmpl", model.name), texts, generation.usage)


class CompletionFrames(ChoiceFrames):
    """`text_completion` frames."""

    def __init__(self, identity: Identity, include_usage: bool) -> None:
        super().__init__(b"text_completion", identity, include_usage)

    def begin(self, _index: int) -> bytes:
        return b""

    def text(self, index: int, text: str) -> bytes:
        return self._frame(index, to_json(text), b"null")

    def finish(self, index: int, reason: WireFinishReason) -> bytes:
        return self._frame(index, b'""', to_json(reason))

    def _frame(self, index: int, text: bytes, reason: bytes) -> bytes:
        choice = b'{"index":%d,"text":%b,"logprobs":null,"finish_reason":%b}' % (index, text, reason)
        return self.with_choice(choice)


async def _generation(model: ServedModel, body: CompletionRequest) -> Generation:
    model.check_name(body.model)
    priority = body.priority or 0
    samplings = choice_sampling(body, model.engine.default_params)
    prompts = [await model.engine.tokenize(prompt) if isinstance(prompt, str) else prompt for prompt in body.prompt]
    jobs = [Job(index, prompt, sampling, priority) for index, prompt in enumerate(prompts) for sampling in samplings]
    return Generation(model.engine, jobs)


def _completion(identity: Identity, texts: Sequence[Text], usage: Usage) -> Completion:
    choices = tuple(
        CompletionChoice(index=index, text=text, finish_reason=reason) for index, (text, reason) in enumerate(texts)
    )
    return Completion(id=identity.id, created=identity.created, model=identity.model, choices=choices, usage=usage)
