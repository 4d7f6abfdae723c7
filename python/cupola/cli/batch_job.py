"""The work of `cupola batch`: from one line to its answer, and the order and durability of the output.

The output's lines are in the order of the input's, so what an interrupted run left behind answers the first lines
of the input, and the next run goes on after them.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic_core import from_json, to_json

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.gather import in_order
from cupola.engine.options import EngineOptions
from cupola.errors import CupolaError, OverloadedError, StorageError, UsageError
from cupola.protocol.chat import ChatCompletionRequest
from cupola.protocol.completions import CompletionRequest
from cupola.protocol.errors import ApiError, api_error, validation_error
from cupola.server.chat import create_chat_completion
from cupola.server.completions import create_completion
from cupola.server.served_model import ServedModel

# How every line of the output begins: by it a line that a crash cut short is told from another file's content.
_LINE_START = b'{"id":"batch_req_'

CHAT_URL = "/v1/chat/completions"
COMPLETIONS_URL = "/v1/completions"


class BatchRequest(BaseModel):
    """One line of the input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    custom_id: str
    method: str = "POST"
    url: str
    body: dict[str, JsonValue]


class BatchResponse(BaseModel):
    """What the HTTP endpoint would have answered."""

    status_code: int
    request_id: str
    body: JsonValue


class BatchError(BaseModel):
    """Why a line could not even be asked."""

    code: str
    message: str


class BatchAnswer(BaseModel):
    """One line of the output; exactly one of `response` and `error` is set."""

    id: str
    custom_id: str | None
    response: BatchResponse | None = None
    error: BatchError | None = None

    @property
    def succeeded(self) -> bool:
        """The request was answered with success."""
        return self.response is not None and self.response.status_code == 200


@dataclass(slots=True)
class Summary:
    """What a run did."""

    kept: int = 0
    answered: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """Lines of the output."""
        return self.kept + self.answered + self.failed

    def describe(self, output: Path) -> str:
        """One line for the user."""
        parts = [f"{self.answered} answered"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.kept} kept from an earlier run"] if self.kept else []
        return f"{output}: {', '.join(parts)}"


async def run_batch(
    input_file: Path,
    output_file: Path,
    model: str,
    names: tuple[str, ...],
    backend: str,
    config: EngineOptions,
    on_progress: Callable[[Summary], None] = lambda _: None,
) -> Summary:
    """Answer every line of the input that the output does not answer yet.

    Args:
        names: what requests may call the model; by default its own name and `model`.
        on_progress: called with what was done so far, after each line.

    Raises:
        StorageError: the input cannot be read or the output not written.
        UsageError: the output belongs to another input, or another run is writing it.
        EngineError: the engine died; what was answered until then is kept.
        CupolaError: the model cannot be opened.
    """
    with _open_input(input_file) as lines, _open_output(output_file, input_file) as output:
        summary = Summary()
        seen: set[str] = set()
        summary.kept = _skip_answered(lines, output, seen, input_file, output_file)
        async with await AsyncEngine.open(model, backend=backend, config=config) as engine:
            served = ServedModel.of(engine, names or tuple(dict.fromkeys((engine.model_name, model))))

            async def work(request: BatchRequest | BatchAnswer) -> BatchAnswer:
                return request if isinstance(request, BatchAnswer) else await _answer(served, request)

            async with aclosing(in_order(engine, _requests(lines, seen), work)) as answers:
                async for answer in answers:
                    _append(output, answer, output_file)
                    summary.answered += answer.succeeded
                    summary.failed += not answer.succeeded
                    on_progress(summary)
    return summary


def count_requests(path: Path) -> int | None:
    """Lines of the input that are not blank; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError:
        return None


@contextmanager
def _open_input(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of the input that are not blank."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise StorageError(f"`{path}` cannot be read: {error.strerror}", hint="Check the name of the input.") from error
    with file:
        yield (line for line in file if line.strip())


@contextmanager
def _open_output(path: Path, source: Path) -> Iterator[BufferedRandom]:
    """The output for reading and appending, locked against a second run."""
    if path.exists() and not path.is_file():
        raise StorageError(f"`{path}` is not a file", hint="Choose another output.")
    if path.exists() and path.samefile(source):
        raise UsageError(f"`{path}` and `{source}` are the same file", hint="Choose another output.")
    try:
        file = path.open("a+b")
    except OSError as error:
        raise StorageError(
            f"`{path}` cannot be written: {error.strerror}", hint="Choose another output, or mend its permissions."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"Another run is writing `{path}`", hint="Wait for it, or choose another output."
            ) from error
        file.seek(0)
        yield file


def _skip_answered(lines: Iterator[bytes], output: BufferedRandom, seen: set[str], source: Path, path: Path) -> int:
    """Take the lines that the output answers already from the input, drop a torn last line; gives their number."""
    kept = end = 0
    while line := output.readline():
        try:
            answered = _answered_id(line)
        except ValueError as error:
            if _is_torn(line) and not output.read(1):
                break
            raise UsageError(
                f"Line {kept + 1} of `{path}` is not an answer of `cupola batch`", hint="Choose another output file."
            ) from error
        asked = next(lines, None)
        if asked is None or _custom_id(asked) != answered:
            raise UsageError(
                f"`{path}` holds answers to another input: its line {kept + 1} does not answer that line of `{source}`",
                hint="Choose another output file, or delete this one.",
            )
        if answered is not None:
            seen.add(answered)
        kept += 1
        end = output.tell()
    output.truncate(end)
    return kept


def _answered_id(line: bytes) -> str | None:
    """The custom_id of an answer. ValueError: the line is no whole answer."""
    if not line.endswith(b"\n"):
        raise ValueError("the line has no end")
    return BatchAnswer.model_validate_json(line).custom_id


def _is_torn(line: bytes) -> bool:
    """Whether a crash may have left this: the beginning of an answer, or the zeros of a block never written."""
    text = line.strip(b"\0\n")
    return text.startswith(_LINE_START) or _LINE_START.startswith(text)


def _append(output: BufferedRandom, answer: BatchAnswer, path: Path) -> None:
    """Write a line past Python's buffer, which would try again at the end what a full disk refused."""
    data = to_json(answer) + b"\n"
    try:
        while data:
            data = data[os.write(output.fileno(), data) :]
    except OSError as error:
        raise StorageError(
            f"`{path}` cannot be written: {error.strerror}",
            hint="Make room, and run the same command again: it goes on where it ended.",
        ) from error


def _requests(lines: Iterator[bytes], seen: set[str]) -> Iterator[BatchRequest | BatchAnswer]:
    """Each line as a request, or as the answer that says what is wrong with it."""
    for line in lines:
        try:
            request = BatchRequest.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            message = f"`{field}`: {first['msg']}" if field else first["msg"]
            yield _unasked(_custom_id(line), "invalid_line", message)
            continue
        if request.custom_id in seen:
            yield _unasked(request.custom_id, "duplicate_custom_id", "An earlier line has the same `custom_id`")
            continue
        seen.add(request.custom_id)
        if request.method != "POST" or request.url not in (CHAT_URL, COMPLETIONS_URL):
            message = (
                f"{request.method} {request.url} is not supported; allowed: POST {CHAT_URL}, POST {COMPLETIONS_URL}"
            )
            yield _unasked(request.custom_id, "invalid_url", message)
            continue
        yield request


async def _answer(served: ServedModel, request: BatchRequest) -> BatchAnswer:
    """What the HTTP endpoint would answer. OverloadedError: try again. EngineError: the engine died."""
    try:
        body = await _response_body(served, request)
        return _asked(request, 200, body)
    except OverloadedError:
        raise
    except CupolaError as error:
        if not served.engine.healthy:
            raise
        refusal = api_error(error)
    except ValidationError as error:
        refusal = validation_error(error)
    except ApiError as error:
        refusal = error
    return _asked(request, refusal.status, from_json(refusal.to_json()))


async def _response_body(served: ServedModel, request: BatchRequest) -> JsonValue:
    if request.body.get("stream"):
        raise ApiError(400, "`stream` is not supported in a batch.", code="unsupported_parameter", param="stream")
    if request.url == CHAT_URL:
        chat = await create_chat_completion(served, ChatCompletionRequest.model_validate(request.body))
        return from_json(chat.model_dump_json())
    completion = await create_completion(served, CompletionRequest.model_validate(request.body))
    return from_json(completion.model_dump_json())


def _asked(request: BatchRequest, status: int, body: JsonValue) -> BatchAnswer:
    response = BatchResponse(status_code=status, request_id=f"req_{uuid.uuid4().hex}", body=body)
    return BatchAnswer(id=_new_id(), custom_id=request.custom_id, response=response)


def _unasked(custom_id: str | None, code: str, message: str) -> BatchAnswer:
    return BatchAnswer(id=_new_id(), custom_id=custom_id, error=BatchError(code=code, message=message))


def _new_id() -> str:
    return f"batch_req_{uuid.uuid4().hex}"


def _custom_id(line: bytes) -> str | None:
    """The custom_id of a line, as far as it can be read."""
    try:
        content = from_json(line)
    except ValueError:
        return None
    custom_id = content.get("custom_id") if isinstance(content, dict) else None
    return custom_id if isinstance(custom_id, str) else None
