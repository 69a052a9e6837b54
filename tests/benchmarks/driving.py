"""A plan driven in the test's own event loop, so that each trap costs no process; the processes have tests of their own."""

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.client.capabilities import Capabilities
from benchmarks.client.driver import drive
from benchmarks.client.target import Api, TargetSpec
from benchmarks.client.worker import opened_target
from benchmarks.load.plan import Plan, Request
from benchmarks.measuring.record import Record

MODEL = Capabilities(model="stub")
PROMPT = "a prompt of five words"


def spec_of(url: str | None, api: Api = "completions", **behaviour: Any) -> TargetSpec:
    """The stub at `url`, told to behave so in every body."""
    is_sagemaker = api in ("sagemaker", "sagemaker-stream")
    return TargetSpec(api, url, endpoint_name="chat" if is_sagemaker else None, extra_body={"stub": behaviour} if behaviour else {})


def closed(num_requests: int = 1, concurrency: int = 1, max_tokens: int = 8, **plan: Any) -> Plan:
    """A closed loop of equal requests."""
    return Plan(tuple(Request(number, PROMPT, max_tokens) for number in range(num_requests)), concurrency=concurrency, **plan)


def opened(times: Sequence[float], max_tokens: int = 8, **plan: Any) -> Plan:
    """An open loop of equal requests."""
    return Plan(tuple(Request(number, PROMPT, max_tokens, at_s=at_s) for number, at_s in enumerate(times)), **plan)


async def driven(plan: Plan, spec: TargetSpec, capabilities: Capabilities = MODEL) -> list[Record]:
    """The records of one run that begins now."""
    async with opened_target(spec, capabilities, plan) as target:
        return await drive(plan, target, time.monotonic())
