"""What the rest of the house knows of an engine: it starts, generates, serves OpenAI routes, dies, stops. No vLLM in sight.

Bodies are OpenAI requests as plain dictionaries, answers are JSON texts: whole (`bytes`), or one text a chunk without any framing, which is
the business of the API. A cascade of engines is an engine too.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, Self

from starlette.types import ASGIApp

Kind = Literal["chat", "completion"]
Report = Callable[[str, float | None], None]
"""Called with a phase of start-up and, where known, how much of it is done (0..1)."""


class Chunks(Protocol):
    """The JSON texts of a streamed answer. `aclose` aborts the request; it must be called when the stream is left before its end."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> str: ...

    async def aclose(self) -> None: ...


class Engine(Protocol):
    """Produces tokens. All methods are called on one event loop."""

    @property
    def model_names(self) -> list[str]:
        """Names a request's `model` may hold; the first is the base model's."""
        ...

    @property
    def openai_app(self) -> ASGIApp:
        """The engine's own OpenAI routes (`/v1/...`). Valid after `start`."""
        ...

    async def start(self, report: Report) -> None:
        """Come up until a token has been produced.

        Raises:
            StartError: with the one line that says why not.
        """
        ...

    async def generate(self, kind: Kind, body: dict[str, Any], request_id: str) -> bytes | Chunks:
        """Answer an OpenAI request: JSON bytes, or with `stream: true` JSON chunks, each as soon as its token exists.

        Cancelling the call, or closing the chunks, aborts the request in the engine. After the first chunk an error arrives as a chunk
        with the key `error`.

        Raises:
            RequestError: the request is refused or failed before its first chunk.
        """
        ...

    async def wait_dead(self) -> str:
        """Return when the engine has died, with the reason in one line."""
        ...

    async def stop(self) -> None:
        """Abort what runs and free the device. Harmless if never started."""
        ...
