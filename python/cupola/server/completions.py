"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from cupola.engine.output import Completion as Answer
from cupola.engine.output import TextDelta
from cupola.errors import RequestError
from cupola.protocol.completions import Completion, CompletionChoice, CompletionRequest
from cupola.protocol.generation import Usage
from cupola.protocol.logprobs import CompletionLogprobs
from cupola.protocol.prompts import Prompt
from cupola.server.answer import stream, whole
from cupola.server.body import parse_body
from cupola.server.frames import ChoiceFrames, ids_field
from cupola.server.generation import Generation, Job, wire_reason
from cupola.server.identity import Identity
from cupola.server.logprobs import CompletionLogprobsWriter, joined, prompt_logprobs
from cupola.server.sampling import choice_sampling, request_options
from cupola.server.served_model import ServedModel
from cupola.server.services import Services
from cupola.server.structured import grammar_field
from cupola.text.detokenizer import decode
from cupola.text.infill import Infill, find_infill
from cupola.text.tokenizer import Tokenizer


async def completions(services: Services, request: Request) -> Response:
    """Continues texts, whole or as a stream."""
    body = await parse_body(request, CompletionRequest)
    model = await services.model(request, body.model)
    generation = await _generation(model, body)
    identity = Identity.new("cmpl", model.name)
    choices = [_Choice(model.engine.tokenizer, body, job) for job in generation.jobs]
    if body.stream:
        return await stream(request, generation, CompletionFrames(identity, body, choices))
    return await whole(request, generation, lambda answers, usage: _completion(identity, choices, answers, usage))


async def create_completion(model: ServedModel, body: CompletionRequest) -> Completion:
    """The same without HTTP, always whole.

    Raises:
        ApiError: the model's name is not served.
        CupolaError: the request does not fit, or the engine failed.
    """
    async with await _generation(model, body) as generation:
        answers = await generation.answers()
    choices = [_Choice(model.engine.tokenizer, body, job) for job in generation.jobs]
    return _completion(Identity.new("cmpl", model.name), choices, answers, generation.usage)


class _Choice:
    """What one choice has beside its text: the echo of its prompt, and log-probabilities as they come."""

    def __init__(self, tokenizer: Tokenizer, body: CompletionRequest, job: Job) -> None:
        self.body = body
        self.prompt = job.prompt
        self._tokenizer = tokenizer
        self._begun = False
        self._writer = None if body.logprobs is None else CompletionLogprobsWriter(tokenizer, body.logprobs)

    @property
    def echo(self) -> str:
        """The text of the prompt, if it was asked for."""
        return decode(self._tokenizer, self.prompt) if self.body.echo else ""

    def logprobs(self, delta: TextDelta | Answer) -> CompletionLogprobs | None:
        """Of what is new; with an echo the prompt's tokens come first. A stop token counts, as it does in the usage."""
        if self._writer is None:
            return None
        parts = []
        if self.body.echo and not self._begun:
            self._begun = True
            parts.append(self._writer.unscored(self.prompt[0]))
        if self.body.echo:
            parts.append(self._writer.write(delta.prompt_logprobs))
        stop = () if delta.stop_logprob is None else (delta.stop_logprob,)
        return joined([*parts, self._writer.write((*delta.logprobs, *stop))])

    def whole(self, index: int, answer: Answer) -> CompletionChoice:
        """All of it."""
        with_ids, with_prompt = bool(self.body.return_token_ids), self.body.prompt_logprobs is not None
        return CompletionChoice(
            index=index,
            text=self.echo + answer.text,
            logprobs=self.logprobs(answer),
            finish_reason=wire_reason(answer.finish_reason),
            token_ids=answer.token_ids if with_ids else None,
            prompt_token_ids=tuple(self.prompt) if with_ids else None,
            prompt_logprobs=prompt_logprobs(answer.prompt_logprobs) if with_prompt else None,
        )


class CompletionFrames(ChoiceFrames):
    """`text_completion` frames."""

    def __init__(self, identity: Identity, body: CompletionRequest, choices: Sequence[_Choice]) -> None:
        super().__init__(b"text_completion", identity, body.include_usage)
        self._with_logprobs = body.logprobs is not None
        self._with_ids = bool(body.return_token_ids)
        self._choices = choices

    def begin(self, index: int) -> bytes:
        choice = self._choices[index]
        ids = ids_field(b"prompt_token_ids", choice.prompt) if self._with_ids else b""
        return self.with_choice(_frame(index, choice.echo, extra=ids)) if choice.echo or ids else b""

    def more(self, index: int, delta: TextDelta) -> bytes:
        tokens = delta.token_ids or delta.prompt_logprobs or delta.stop_logprob
        if not delta.text and not (tokens and (self._with_logprobs or self._with_ids)):
            return b""
        logprobs = self._choices[index].logprobs(delta)
        ids = ids_field(b"token_ids", delta.token_ids) if self._with_ids else b""
        return self.with_choice(_frame(index, delta.text, logprobs, extra=ids))

    def finish(self, index: int, delta: TextDelta) -> bytes:
        if delta.finish_reason is None:
            return b""
        return self.with_choice(_frame(index, "", reason=to_json(wire_reason(delta.finish_reason))))


def _frame(
    index: int, text: str, logprobs: CompletionLogprobs | None = None, reason: bytes = b"null", extra: bytes = b""
) -> bytes:
    told = b"null" if logprobs is None else logprobs.model_dump_json().encode()
    fields = (index, to_json(text), told, reason, extra)
    return b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b%b}' % fields


async def _generation(model: ServedModel, body: CompletionRequest) -> Generation:
    model.check_name(body.model)
    model.engine.check_room()
    options = request_options(body)
    samplings = choice_sampling(body, model.engine.default_params)
    if body.suffix:
        infill = _infill(model)
        samplings = tuple(replace(one, stop_token_ids=(*one.stop_token_ids, *infill.ends)) for one in samplings)
        suffix = await model.engine.tokenize(body.suffix, add_special_tokens=False)
        prefixes = [await _token_ids(model, prompt, add_special_tokens=False) for prompt in body.prompt]
        prompts: list[Sequence[int]] = [infill.prompt(prefix, suffix) for prefix in prefixes]
    else:
        prompts = [await _token_ids(model, prompt) for prompt in body.prompt]
    jobs = [Job(index, prompt, sampling, options) for index, prompt in enumerate(prompts) for sampling in samplings]
    return Generation(model.engine, jobs, {"grammar": grammar_field(body)})


async def _token_ids(model: ServedModel, prompt: Prompt, *, add_special_tokens: bool = True) -> Sequence[int]:
    if isinstance(prompt, str):
        return await model.engine.tokenize(prompt, add_special_tokens=add_special_tokens)
    return prompt


def _infill(model: ServedModel) -> Infill:
    found = find_infill(model.engine.tokenizer)
    if found is None:
        raise RequestError(
            f"`suffix` needs a model that was trained to fill in the middle; the tokenizer of `{model.name}` has no "
            "tokens for it",
            param="suffix",
            code="unsupported_parameter",
            hint="leave `suffix` out, or serve a code model such as Qwen2.5-Coder or StarCoder.",
        )
    return found


def _completion(identity: Identity, choices: Sequence[_Choice], answers: Sequence[Answer], usage: Usage) -> Completion:
    return Completion(
        id=identity.id,
        created=identity.created,
        model=identity.model,
        choices=tuple(choice.whole(index, answers[index]) for index, choice in enumerate(choices)),
        usage=usage,
    )
