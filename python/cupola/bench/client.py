"""A client of `/v1/completions` of any OpenAI-compatible server: prompts go out, samples come back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus

from pydantic import BaseModel, JsonValue, ValidationError

from cupola.bench.exchange import Address, Answer, exchange
from cupola.bench.sample import Sample
from cupola.errors import CupolaError, EngineError, RequestError

_SECONDS = 900.0  # most for one answer


class _Choice(BaseModel):
    text: str | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Error(BaseModel):
    message: str


class _Frame(BaseModel):
    """What of a frame of a stream matters here."""

    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    error: _Error | None = None


class _ErrorBody(BaseModel):
    error: _Error


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: tuple[_Model, ...]


class _NotReadyError(EngineError):
    """Status 503: later perhaps."""


class Client:
    """Talks with one server.

    Args:
        url: the server's address, with or without `/v1`.
        model: the model to ask for; None takes the first that the server lists.
        api_key: sent as a bearer token, if given.
    """

    def __init__(self, url: str, model: str | None = None, api_key: str | None = None) -> None:
        self._address = Address.parse(url)
        self._model = model
        self._head_end = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._extensions: frozenset[str] = frozenset()

    @property
    def url(self) -> str:
        """The server's address."""
        return self._address.url

    @property
    def model(self) -> str | None:
        """The model's name, once it is known."""
        return self._model

    async def connect(self) -> None:
        """Find out the model's name, and which extensions of the API the server knows.

        Raises:
            CupolaError: there is no such server, or it cannot answer.
        """
        if self._model is None:
            self._model = await self._first_model()
        await self.complete("Hello", 1)
        known: list[str] = []
        for name in ("ignore_eos", "cache_prompt"):
            try:
                await self._complete("Hello", 1, {name: True})
            except RequestError:
                continue
            known.append(name)
        self._extensions = frozenset(known)

    async def complete(self, prompt: str, max_tokens: int, *, reuse_prefix: bool = False) -> Sample:
        """Stream the greedy answer to a prompt.

        Raises:
            RequestError: the server refused the request.
            EngineError: it cannot be reached, failed, went away, or does not count tokens.
        """
        wanted: dict[str, JsonValue] = {"ignore_eos": True, "cache_prompt": reuse_prefix}
        return await self._complete(prompt, max_tokens, {n: v for n, v in wanted.items() if n in self._extensions})

    async def try_complete(self, prompt: str, max_tokens: int) -> Sample | None:
        """Like `complete`, but None while nobody listens, or while the server says that it is not ready yet."""
        try:
            if self._model is None:
                self._model = await self._first_model()
            return await self._complete(prompt, max_tokens, {})
        except _NotReadyError:
            return None
        except EngineError as error:
            if isinstance(error.__cause__, ConnectionRefusedError | ConnectionResetError):
                return None
            raise

    async def _complete(self, prompt: str, max_tokens: int, extensions: Mapping[str, JsonValue]) -> Sample:
        answer = await self._post(prompt, max_tokens, extensions)
        self._check(answer)
        return self._sample(answer)

    async def _post(self, prompt: str, max_tokens: int, extensions: Mapping[str, JsonValue]) -> Answer:
        body: dict[str, JsonValue] = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **extensions,
        }
        head = self._head("POST", "/v1/completions", "Content-Type: application/json\r\n")
        return await exchange(self._address, head, json.dumps(body).encode(), _SECONDS)

    async def _first_model(self) -> str:
        answer = await exchange(self._address, self._head("GET", "/v1/models"), b"", _SECONDS)
        self._check(answer)
        try:
            models = _Models.model_validate_json(answer.body).data
        except ValidationError as error:
            raise EngineError(f"{self.url} does not list its models as OpenAI's API does") from error
        if not models:
            raise EngineError(f"{self.url} serves no model")
        return models[0].id

    def _head(self, method: str, path: str, headers: str = "") -> bytes:
        return f"{method} {self._address.path}{path} HTTP/1.1\r\n{headers}{self._head_end}".encode()

    def _check(self, answer: Answer) -> None:
        """Raise what a status other than 200 means."""
        if answer.status == HTTPStatus.OK:
            return
        try:
            reason = _ErrorBody.model_validate_json(answer.body).error.message
        except ValidationError:
            reason = answer.body[:200].decode(errors="replace").strip() or HTTPStatus(answer.status).phrase
        raise _kind_of(answer.status)(f"{self.url} answered with status {answer.status}: {reason}")

    def _sample(self, answer: Answer) -> Sample:
        """Read the frames of a stream."""
        arrivals: list[float] = []
        ends: list[float] = []
        usage: _Usage | None = None
        for when, frame in self._frames(answer):
            usage = frame.usage or usage
            if any(choice.text for choice in frame.choices):
                arrivals.append(when)
            if any(choice.finish_reason for choice in frame.choices):
                ends.append(when)
        if not ends:
            raise EngineError(f"{self.url} ended a stream without a finish reason", hint="See the server's log.")
        if usage is None:
            raise EngineError(
                f"{self.url} does not say how many tokens it generated",
                hint="It has to know `stream_options.include_usage`.",
            )
        # A token may have no text of its own (a special one, half a character): the end is an arrival then.
        return Sample(answer.start, tuple(arrivals or ends[:1]), ends[-1], usage.prompt_tokens, usage.completion_tokens)

    def _frames(self, answer: Answer) -> Iterator[tuple[float, _Frame]]:
        """The frames of a stream, each with the time at which it was complete."""
        rest = b""
        for when, part in answer.parts:
            *events, rest = (rest + part).replace(b"\r\n", b"\n").split(b"\n\n")
            for event in events:
                data = b"".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
                if not data or data == b"[DONE]":
                    continue
                try:
                    frame = _Frame.model_validate_json(data)
                except ValidationError as error:
                    raise EngineError(f"{self.url} sent a frame that is not OpenAI's: {data[:200]!r}") from error
                if frame.error is not None:
                    raise EngineError(f"{self.url} failed while it answered: {frame.error.message}")
                yield when, frame


def _kind_of(status: int) -> type[CupolaError]:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return _NotReadyError
    return RequestError if status < HTTPStatus.INTERNAL_SERVER_ERROR else EngineError
