"""vLLM's client with a ledger of its work: every sequence, whichever route it came by, is a ticket, and can be ended early.

All of vLLM's handlers ask `generate`; here deadlines and a shutdown reach the OpenAI routes and `/invocations` alike. Ending early is
vLLM's own abort, which hands out what there is; only its reason is put right.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

from vllm import RequestOutput, SamplingParams
from vllm.config import VllmConfig
from vllm.exceptions import RetryableRequestError
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from serving.engine.ledger_worker import METHOD
from serving.engine.work import Scope, Ticket, Work, current_scope
from serving.errors import NotReady

_MESSAGES = {
    "deadline": "the deadline passed before the first token; fewer requests at once or a shorter prompt would help",
    "shutdown": "the server is shutting down; the answer is incomplete",
}


class Client(AsyncLLM):
    """See the module."""

    def __init__(self, *args: Any, work: Work, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._work = work
        self._aborts: set[asyncio.Task[None]] = set()

    async def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **kwargs: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        """vLLM's `generate`, within the current scope's deadline.

        Raises:
            RetryableRequestError: ended early, and a stream (which has to be told apart from a finished one) or without a token.
        """
        is_stream = sampling_params.output_kind is not RequestOutputKind.FINAL_ONLY
        scope = current_scope.get() or Scope()
        with self._ticket(prompt, sampling_params, request_id) as ticket, _deadline(scope, ticket, is_stream):
            async with contextlib.aclosing(super().generate(prompt, sampling_params, request_id, **kwargs)) as outputs:
                async for output in outputs:
                    num_tokens = sum(len(choice.token_ids) for choice in output.outputs)
                    ticket.num_generated = ticket.num_generated + num_tokens if is_stream else num_tokens
                    if output.finished and ticket.ended_by is not None:
                        _end_early(output, ticket, scope, is_stream)
                    yield output

    async def measure_memory(self) -> list[dict[str, Any]]:
        """What `ledger_worker.measure` finds in each rank of each replica. Waits for the step that the engine is at.

        Raises:
            NotReady: the engine has died, or cannot measure.
        """
        try:
            # No deadline in the engine: vLLM would take a late answer for that to its next question.
            replicas = await self.engine_core.call_utility_all_async("collective_rpc", METHOD, None, (), None)
        except Exception as error:
            raise NotReady(f"the engine cannot measure its memory: {error or type(error).__name__}") from error
        return [rank for replica in replicas for rank in replica]

    def give_up(self) -> None:
        """Treat the engine as dead: tell all that wait for it, and take nothing more."""
        self.engine_core.resources.engine_dead = True
        self.output_processor.propagate_error(EngineDeadError())

    @contextlib.contextmanager
    def _ticket(self, prompt: Any, sampling_params: SamplingParams, request_id: str) -> Iterator[Ticket]:
        def abort() -> None:
            task = asyncio.ensure_future(self.abort(request_id))
            # The loop itself holds tasks by weak references only.
            self._aborts.add(task)
            task.add_done_callback(self._aborts.discard)

        num_prompt_tokens = len(prompt.get("prompt_token_ids") or ()) if isinstance(prompt, Mapping) else 0
        ticket = self._work.begin(num_prompt_tokens, sampling_params.max_tokens or 0, abort)
        try:
            yield ticket
        finally:
            self._work.end(ticket)


@contextlib.contextmanager
def _deadline(scope: Scope, ticket: Ticket, is_stream: bool) -> Iterator[None]:
    deadline_s = scope.stream_deadline_s if is_stream else scope.deadline_s
    if deadline_s is None:
        yield
        return
    loop = asyncio.get_running_loop()
    # The scope began with the request, not with this sequence; both clocks are the monotonic one.
    timer = loop.call_at(scope.started + deadline_s, ticket.cut, "deadline")
    try:
        yield
    finally:
        timer.cancel()


def _end_early(output: RequestOutput, ticket: Ticket, scope: Scope, is_stream: bool) -> None:
    """Make of vLLM's aborted output an honest end, or an error where there is nothing to give or a stream would look complete."""
    assert ticket.ended_by is not None  # noqa: S101 - the caller looked
    cut = [choice for choice in output.outputs if choice.finish_reason == "abort"]
    if not cut:
        return  # it had finished by itself in the same moment
    scope.ended_by = ticket.ended_by
    if ticket.num_generated == 0 or (is_stream and ticket.ended_by == "shutdown"):
        raise RetryableRequestError(_MESSAGES[ticket.ended_by])
    for choice in cut:
        choice.finish_reason, choice.stop_reason = "length", ticket.ended_by


def pulse_logger(work: Work) -> Callable[[VllmConfig, int], StatLoggerBase]:
    """A factory for vLLM's list of stat loggers: each step of the engine is told to `work`."""

    class Pulse(StatLoggerBase):
        def __init__(self, vllm_config: VllmConfig, engine_index: int = 0) -> None:
            pass

        def record(self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0) -> None:
            work.step(iteration_stats.num_generation_tokens + iteration_stats.num_prompt_tokens if iteration_stats else 0)

        def log_engine_initialized(self) -> None:
            pass

    return Pulse
