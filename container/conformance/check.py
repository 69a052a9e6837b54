"""What a check is: a name, the sentence of the contract it proves, where that is written, and a function of a running server.

The function returns what it measured, or raises Failed or Skipped with why.
Knows nothing of how servers are started or results are shown.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import httpx
from websockets.exceptions import WebSocketException

from container.conformance.server import Server

INF = "https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html"
OPENAI = "https://docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints-openai-compatible.html"
RUNTIME = "https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html"
ASYNC = "https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html"
BATCH = "https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-batch-code.html"
PORTS = "https://docs.aws.amazon.com/sagemaker/latest/dg/multi-container-direct.html"
ISOLATION = "https://docs.aws.amazon.com/sagemaker/latest/dg/mkt-algo-model-internet-free.html"
STANDARDS = "https://github.com/aws/model-hosting-container-standards"
METRICS = "https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-detailed-observability-getting-started.html"
OWN = "Tokenport's contract"
"""Not asked for by SageMaker, but what an operator needs: what Tokenport promises beyond it."""


class Failed(Exception):
    """The server does not keep this sentence. The text says what it did instead."""


class Skipped(Exception):
    """Cannot be seen here. The text says why."""


@dataclass(frozen=True)
class Check:
    """One sentence of the contract. `run` is given a server that is ready, unless its stage says otherwise."""

    name: str
    sentence: str
    source: str
    run: Callable[[Server], str]


@dataclass(frozen=True)
class Result:
    """How a check went. `told` is the figure measured, or why it failed or was skipped."""

    check: Check
    group: str
    outcome: Literal["pass", "fail", "skip"]
    told: str
    seconds: float


def carry_out(check: Check, group: str, server: Server) -> Result:
    """Run one check. A connection that breaks or stays silent is a failure of the server's."""
    started = time.monotonic()
    outcome: Literal["pass", "fail", "skip"] = "pass"
    try:
        told = check.run(server)
    except Skipped as reason:
        outcome, told = "skip", str(reason)
    except Failed as reason:
        outcome, told = "fail", str(reason)
    except (httpx.HTTPError, OSError, WebSocketException, KeyError, IndexError, TypeError, ValueError) as error:
        # What was received has not the shape it should have, or was not received.
        outcome, told = "fail", f"{type(error).__name__}: {error}"
    return Result(check, group, outcome, told, time.monotonic() - started)


def expect(holds: bool, otherwise: str) -> None:
    """Fail with `otherwise` unless `holds`."""
    if not holds:
        raise Failed(otherwise)
