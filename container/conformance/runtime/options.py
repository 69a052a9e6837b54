"""What the runtime can be told, with the platform's own figures as defaults."""

import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """One endpoint with one production variant in front of one container."""

    target: str
    """Where the container listens, as `http://host:port`."""
    endpoint_name: str = "local"
    variant_name: str = "AllTraffic"
    split_seed: int = field(default_factory=lambda: random.randrange(2**32))  # noqa: S311 - no secret
    """Seeds the re-splitting of streams; request number n is split by a generator of its own."""
    max_body_bytes: int = 25 * 1024 * 1024
    """AWS's FAQ says 25 MB; the SDKs' model still declares 6,291,456 for `Body`, and does not enforce it."""
    invoke_timeout_s: float = 60.0
    """InvokeEndpoint: the container must have responded ("within 60 seconds", the API reference)."""
    stream_timeout_s: float = 480.0
    """InvokeEndpointWithResponseStream: the whole stream ("8 minutes", AWS's FAQ)."""
    ping_interval_s: float = 5.0
    """How often /ping is asked; AWS publishes no figure."""
    ping_timeout_s: float = 2.0
    """When a ping counts as failed (the developer guide's "two-second" rule)."""
    throttle_rps: float | None = None
    """Requests a second before ThrottlingException, with one second's worth of burst; `None`: no limit."""
    max_concurrency: int | None = None
    """Requests at a time before ThrottlingException; `None`: no limit."""
