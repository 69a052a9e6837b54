"""The tree of errors. Everything Tokenport raises on purpose is one of these.

TokenportError
├── StartError                 the process cannot start; its text is the one line a person acts on
│   ├── SettingsError          a setting is unknown, malformed or contradicts another
│   ├── ModelUnavailable       the model named cannot be found, fetched or converted
│   └── NoFit                  the devices have not the memory that the model needs; says both
├── EngineDead                 the engine stopped and will not come back; the process must end
├── NoAnswer                   a server that a command asked is not there, or does not say
├── BenchmarkError             a benchmark cannot be run as asked; names the option, its value and what would be right
├── PlanError                  a plan cannot be made of what was given; names the option or field, its value and what would be right
├── CascadeError               a policy cannot be fitted or evaluated from what was given
├── DeployError                something cannot be deployed, or AWS refused a step of it
└── RequestError               one request is refused; carries the HTTP status and the OpenAI error fields
    ├── InvalidRequest         400: a field is wrong; `param` names it
    ├── Unauthorized           401: no valid API key
    ├── UnknownModel           404: `model` is none of those served
    ├── UnknownRoute           404: no such path
    ├── UnknownSession         404: the session was never opened here, was closed, or has expired
    ├── UnknownAdapter         404: no LoRA adapter of that name is registered
    ├── MethodNotAllowed       405
    ├── NotAcceptable          406: no answer is to be had in the form that `Accept` asks for
    ├── RequestTimeout         408: the body did not arrive
    ├── Conflict               409: the name is taken by something else
    ├── BodyTooLarge           413
    ├── UnsupportedMediaType   415: the body is not what its content type should say
    ├── Overloaded             429: the queue is full; says when to come back
    ├── NotReady               503: loading, draining or dead; says which
    ├── NotEnabled             501: a setting switches it on; says which
    ├── InsufficientStorage    507: no memory for it, and none will come free by itself
    ├── CustomCodeFailure      500: the model's own code failed on this request
    ├── EngineFailure          500: the engine failed on this request
    └── TierFailure            502: a model elsewhere did not answer; says which and why
"""

from typing import ClassVar, Literal


class TokenportError(Exception):
    """Base of all errors raised on purpose."""


class StartError(TokenportError):
    """The process cannot start. The text is one line that says what to do."""


class SettingsError(StartError):
    """A setting is unknown, malformed or contradicts another."""


class ModelUnavailable(StartError):
    """The model cannot be found, fetched or converted."""


class NoFit(StartError):
    """The devices have not the memory that the model needs."""


class EngineDead(TokenportError):
    """The engine stopped and will not come back."""


class NoAnswer(TokenportError):
    """A server that a command asked is not there, or does not say what it was asked for."""


class BenchmarkError(TokenportError):
    """A benchmark cannot be run as asked: an option, an input file or the target is wrong. One line that says what would be right."""


class PlanError(TokenportError):
    """A plan cannot be made of what was given: an option, a config.json, a load file. One line that says what would be right."""


class CascadeError(TokenportError):
    """A policy cannot be fitted or evaluated from what was given. One line that says what would be right."""


class DeployError(TokenportError):
    """Something cannot be deployed, or AWS refused a step of it; says which step and what is left behind."""


class RequestError(TokenportError):
    """One request is refused.

    `param` names the field at fault (dotted path, `None` if no single field is), `headers` go into the response.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "InternalServerError"

    def __init__(self, message: str, *, param: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, dict[str, str | int | None]]:
        """The OpenAI error body, in the shape vLLM gives it."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.status}}


class InvalidRequest(RequestError):
    """A field of the request is wrong."""

    status = 400
    type = "BadRequestError"


class Unauthorized(RequestError):
    """The API key is missing or wrong."""

    status = 401
    type = "AuthenticationError"


class UnknownModel(RequestError):
    """`model` is none of those served."""

    status = 404
    type = "NotFoundError"


class UnknownRoute(RequestError):
    """There is nothing at this path."""

    status = 404
    type = "NotFoundError"


class UnknownSession(RequestError):
    """The session was never opened here, was closed, or has expired."""

    status = 404
    type = "NotFoundError"


class UnknownAdapter(RequestError):
    """No adapter of that name is registered."""

    status = 404
    type = "NotFoundError"


class MethodNotAllowed(RequestError):
    """The path exists, for another method."""

    status = 405
    type = "MethodNotAllowedError"


class NotAcceptable(RequestError):
    """None of the types in `Accept` can be answered with."""

    status = 406
    type = "NotAcceptableError"


class RequestTimeout(RequestError):
    """The body did not arrive in time."""

    status = 408
    type = "RequestTimeoutError"


class Conflict(RequestError):
    """The name is taken by something else."""

    status = 409
    type = "ConflictError"


class BodyTooLarge(RequestError):
    """The body is larger than the limit."""

    status = 413
    type = "RequestEntityTooLargeError"


class UnsupportedMediaType(RequestError):
    """The content type is not one the route reads."""

    status = 415
    type = "UnsupportedMediaTypeError"


class Overloaded(RequestError):
    """As much waits as may wait."""

    status = 429
    type = "RateLimitError"


class NotReady(RequestError):
    """Loading, draining or dead."""

    status = 503
    type = "ServiceUnavailableError"


class NotEnabled(RequestError):
    """Switched off by the settings."""

    status = 501
    type = "NotImplementedError"


class InsufficientStorage(RequestError):
    """No memory for it, and none will come free by itself."""

    status = 507
    type = "InsufficientStorageError"


class CustomCodeFailure(RequestError):
    """The model's own code failed on this request, or did not answer in time."""


class EngineFailure(RequestError):
    """The engine failed on this request."""


Reason = Literal["throttled", "not_ready", "timeout", "unreachable", "broken", "refused", "failed"]
"""Why a model elsewhere did not answer. `broken`: the connection, before the first byte; `refused`: credentials or permissions."""


class TierFailure(RequestError):
    """A model elsewhere did not answer, before the first byte of its answer. `retry_after_s`: what it asked for, if it did."""

    status = 502
    type = "BadGatewayError"

    def __init__(self, message: str, *, reason: Reason, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s
