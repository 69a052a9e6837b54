"""What the rest of the house knows of an engine: it starts, generates, serves OpenAI routes, dies, stops. No vLLM in sight.

Bodies are OpenAI requests as plain dictionaries, answers are JSON texts: whole (`bytes`), or one text a chunk without any framing, which is
the business of the API. A cascade of engines is an engine too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

from starlette.types import ASGIApp

from serving.engine.work import Work
from serving.planner.interval import Interval

Kind = Literal["chat", "completion"]
Report = Callable[[str, float | None], None]
"""Called with a phase of start-up and, where known, how much of it is done (0..1)."""


@dataclass(frozen=True)
class Capacity:
    """What the engine holds at once: sequences that run together, and tokens that its KV cache has room for."""

    num_sequences: int
    num_tokens: int


@dataclass(frozen=True)
class DeviceMemory:
    """Where the memory of one rank's device is. Bytes; the seven parts add up to `total_bytes`, which are what the engine could use of it.

    `rank` counts over all replicas. `weights_by_dtype` has the names of torch's types. `kv_cache_tokens` are those of sequences at full
    context, `kv_cache_sequences` how many such sequences fit. `activation_peak_bytes`: what steps have needed at most beyond what stays;
    kept aside from `free_bytes` also while nothing runs. `non_torch_bytes`: the rest of this rank's process. `other_bytes`: other
    processes, those of other ranks included where they share the device.
    """

    rank: int
    device: str
    total_bytes: int
    weights_bytes: int
    weights_by_dtype: Mapping[str, int]
    kv_cache_bytes: int
    kv_cache_blocks: int
    kv_cache_tokens: int
    kv_cache_sequences: float
    activation_peak_bytes: int
    cuda_graph_bytes: int
    non_torch_bytes: int
    other_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Planned:
    """What the planner says of the rank that holds the most, in bytes: by the name of each part as in `DeviceMemory`; and of a token of the
    KV cache, over all ranks of a replica. `assumed`: a line for each value that nobody told. `reason`: why there is no plan, if there is
    none."""

    parts: Mapping[str, Interval] = field(default_factory=dict)
    kv_bytes_per_token: int | None = None
    assumed: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Memory:
    """One measurement of all ranks, made `as_of_s` seconds ago; and what was planned, by an engine that plans."""

    devices: tuple[DeviceMemory, ...]
    as_of_s: float
    planned: Planned | None = None


@dataclass(frozen=True)
class Adapter:
    """A registered LoRA adapter: its folder, whether it is in the engine's memory, may leave it, and the sequences that run on it."""

    name: str
    src: str
    is_loaded: bool
    is_pinned: bool
    num_running: int


class Adapters(Protocol):
    """The LoRA adapters of an engine. Those registered can be named as a request's `model`; some of them are in memory."""

    def list(self) -> "list[Adapter]":
        """Those registered."""
        ...

    async def register(self, name: str, src: str, *, preload: bool, pin: bool) -> None:
        """Make the adapter in the folder `src` known; with `preload` load it at once. One that is pinned is never put out of memory.

        Raises:
            InvalidRequest: it is no adapter for this model, or not from where adapters may be read.
            Conflict: the name is taken.
            InsufficientStorage: all places in memory are pinned.
            Overloaded: all places in memory stayed in use.
        """
        ...

    async def remove(self, name: str) -> None:
        """Forget it. What runs on it finishes. Raises UnknownAdapter."""
        ...

    async def make_ready(self, model: str) -> None:
        """Bring the adapter called `model` into memory; of the base model's names nothing is asked.

        Raises:
            UnknownModel: it is the name of neither; says all that are known.
            RequestError: as of `register`, or NotReady: it can no longer be loaded.
        """
        ...


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
    def capacity(self) -> Capacity:
        """What it holds at once. Valid after `start`."""
        ...

    @property
    def work(self) -> Work:
        """What it was asked for and has not finished. Readable at any time, and without asking the engine."""
        ...

    @property
    def adapters(self) -> Adapters | None:
        """Its LoRA adapters, None if it was started without. Valid after `start`."""
        ...

    @property
    def openai_app(self) -> ASGIApp:
        """The engine's own OpenAI routes (`/v1/...`). Valid after `start`."""
        ...

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of those routes. Raises EngineDead before `start`."""
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

    async def probe(self) -> None:
        """Return when a token has been produced. Otherwise ends only by being cancelled, or with EngineDead."""
        ...

    async def memory(self, deadline_s: float) -> Memory:
        """Where every byte of its devices is: measured now, or the last measurement if the engine takes longer than the deadline.

        Raises:
            NotReady: nothing has been measured yet.
        """
        ...

    async def wait_dead(self) -> str:
        """Return when the engine has died, with the reason in one line."""
        ...

    async def stop(self) -> None:
        """Abort what runs and free the device. Harmless if never started."""
        ...


class RemoteModel(Protocol):
    """A model that another server answers for: OpenAI-compatible, SageMaker, Bedrock. Methods are called on one event loop."""

    @property
    def kinds(self) -> frozenset[Kind]:
        """What it can be asked for."""
        ...

    def cannot_honour(self, kind: Kind, body: Mapping[str, Any]) -> str | None:
        """The first field of an OpenAI request that the other side has nothing for, dotted path; None if it takes all of them."""
        ...

    async def generate(self, kind: Kind, body: Mapping[str, Any], request_id: str, *, deadline_s: float) -> bytes | Chunks:
        """As `Engine.generate`; one attempt, never sent twice. `usage` is in the answer, and in the last chunk of a stream, where the other
        side tells it. `deadline_s` is for the whole answer: past it a stream ends with an error chunk.

        Raises:
            TierFailure: nothing came before the failure, so another model may be asked.
            RequestError: the other side says that the request itself is wrong.
        """
        ...

    async def close(self) -> None:
        """Give up its connections."""
        ...
