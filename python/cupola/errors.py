"""The one exception tree of Cupola.

    CupolaError                 anything that we tell a user about: a sentence, a hint, an exit code
    +-- UsageError              the command line or a configuration file asks for something that does not exist
    +-- ModelError              a checkpoint or a compiled model that cannot be read
    |   +-- UnsupportedError    readable, but not something that Cupola knows (architecture, tensor type, scheme)
    |   +-- IncompatibleError   a compiled model made by another version or for another machine
    +-- StorageError            a folder that cannot be written, a disk that is full
    +-- RequestError            a request that cannot be served as asked (HTTP 400)
    |   +-- ContextLengthError  prompt and max_tokens do not fit the model's context or its pages
    +-- OverloadedError         the queue is full or the server drains (HTTP 429 / 503)
    +-- DeadlineError           the request was not done within the time that it gave itself (HTTP 504)
    +-- EngineError             the engine failed; the request or its batch is lost (HTTP 500)

Every message is one sentence without a traceback; `hint` says what to do next.
"""

from __future__ import annotations


class CupolaError(Exception):
    """An error with a sentence for the user, and a hint how to mend it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(CupolaError):
    """The user asked for an option, key or value that does not exist."""

    exit_code = 2


class ModelError(CupolaError):
    """A checkpoint or a compiled model is missing, truncated or inconsistent."""


class UnsupportedError(ModelError):
    """The model is sound, but uses something that Cupola does not know."""


class IncompatibleError(ModelError):
    """The compiled model belongs to another version, target or machine."""


class StorageError(CupolaError):
    """A file could not be written: permissions, a full disk, a read-only folder."""


class RequestError(CupolaError):
    """A request is malformed or asks for what cannot be; `param` names the field."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.param = param
        self.code = code


class ContextLengthError(RequestError):
    """The prompt, or the prompt and `max_tokens` together, exceed what the model can hold."""


class OverloadedError(CupolaError):
    """The engine takes no further request now; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class DeadlineError(CupolaError):
    """The request was not done within the time that it gave itself."""


class EngineError(CupolaError):
    """The engine failed while it worked on a request."""
