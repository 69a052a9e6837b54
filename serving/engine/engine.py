"""vLLM in this process: start, generate, health, stop. The steps of a start: find the model, import vLLM, configure, launch, first token.

The blocking steps run on a thread of their own, so that the event loop answers `/ping` meanwhile; vLLM's engine core is a child process.
vLLM is imported inside the methods: importing takes seconds, which must not pass before the socket is open.
"""

import asyncio
import logging
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import psutil
from starlette.types import ASGIApp

from serving.engine.args import cpu_defaults, engine_arguments, num_ranks
from serving.engine.cpu import memory_fraction
from serving.engine.embedded_model import ensure_model
from serving.engine.environment import runs_on_cpu
from serving.engine.interface import Chunks, Kind, Report
from serving.engine.model_source import ModelSource
from serving.engine.progress import ProgressListener
from serving.errors import EngineDead, SettingsError, StartError
from serving.settings import Settings, vllm_argv

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

    from serving.engine.openai import OpenAILayer

logger = logging.getLogger("tokenport.engine")

_T = TypeVar("_T")
_FIRST_TOKEN_DEADLINE_S = 300.0
_DEATH_POLL_S = 0.25
_STOP_DEADLINE_S = 5.0


class VllmEngine:
    """An `Engine` that is vLLM."""

    def __init__(self, settings: Settings, source: ModelSource) -> None:
        self._settings = settings
        self._source = source
        self._client: AsyncLLM | None = None
        self._layer: OpenAILayer | None = None

    @property
    def model_names(self) -> list[str]:
        """See `Engine`."""
        return self._started.model_names

    @property
    def openai_app(self) -> ASGIApp:
        """See `Engine`."""
        return self._started.app

    @property
    def _started(self) -> "OpenAILayer":
        if self._layer is None:
            raise EngineDead("the engine has not been started")
        return self._layer

    async def start(self, report: Report) -> None:
        """See `Engine`."""
        loop = asyncio.get_running_loop()
        with ProgressListener(report) as progress:
            loop.add_reader(progress.fileno(), progress.drain)
            try:
                args = await _on_thread(lambda: self._launch(report, progress.path))
            except StartError:
                raise
            except Exception as error:
                progress.drain()
                logger.debug("the engine did not start", exc_info=error)
                raise StartError(progress.error or f"{type(error).__name__}: {_one_line(error)}") from error
            finally:
                loop.remove_reader(progress.fileno())
        from serving.engine.openai import OpenAILayer

        assert self._client is not None  # noqa: S101 - set by _launch
        self._layer = await OpenAILayer.create(self._client, args)
        await self._first_token()

    async def generate(self, kind: Kind, body: dict[str, Any], request_id: str) -> bytes | Chunks:
        """See `Engine`."""
        return await self._started.generate(kind, body, request_id)

    async def wait_dead(self) -> str:
        """See `Engine`. Reads a flag that vLLM's monitor of the child process sets; the engine itself is not asked."""
        assert self._client is not None  # noqa: S101 - only a started engine can die
        while not self._client.errored:  # noqa: ASYNC110 - vLLM offers a flag, no event
            await asyncio.sleep(_DEATH_POLL_S)
        return "the engine process died; its last lines in the log say why"

    async def stop(self) -> None:
        """See `Engine`."""
        if self._client is not None:
            if self._client.output_handler is not None:
                # Otherwise it would take the end that is coming for a death, and say so in the log.
                self._client.output_handler.cancel()
            await asyncio.to_thread(self._client.shutdown, _STOP_DEADLINE_S)
        await asyncio.to_thread(_end_children)

    def _launch(self, report: Report, progress_socket: str) -> Namespace:
        model = self._source.location
        if self._source.kind == "embedded":
            model = str(ensure_model(self._settings.cache_dir, report))
        report("importing", None)
        started = time.monotonic()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers.cli_args import propagate_flash_late_interaction
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        logger.info("engine imported", extra={"seconds": round(time.monotonic() - started, 1)})
        args = _parse(
            engine_arguments(
                self._settings.engine,
                model=model,
                served_name=self._source.served_name,
                device_defaults=self._device_defaults(),
                progress_socket=progress_socket,
                log_requests=self._settings.log_requests,
                drain_s=self._settings.drain_s,
            )
        )
        engine_args = AsyncEngineArgs.from_cli_args(args)
        propagate_flash_late_interaction(args, engine_args)
        # A server's defaults for batch sizes, not those of offline use.
        config = engine_args.create_engine_config(UsageContext.OPENAI_API_SERVER)
        report("starting the engine process", None)
        self._client = AsyncLLM.from_vllm_config(
            config,
            enable_log_requests=engine_args.enable_log_requests,
            disable_log_stats=engine_args.disable_log_stats,
            aggregate_engine_logging=engine_args.aggregate_engine_logging,
        )
        return args

    def _device_defaults(self) -> dict[str, Any]:
        user = self._settings.engine
        if not runs_on_cpu():
            return {}
        from vllm.utils.cpu_resource_utils import get_memory_node_info

        memory = get_memory_node_info()
        return cpu_defaults(user, memory_fraction(memory.available_memory, memory.total_memory, num_ranks(user)))

    async def _first_token(self) -> None:
        from vllm import SamplingParams

        assert self._client is not None  # noqa: S101 - called after _launch
        prompt: Any = {"prompt_token_ids": [0]}
        try:
            async with asyncio.timeout(_FIRST_TOKEN_DEADLINE_S):
                async for _ in self._client.generate(prompt, SamplingParams(max_tokens=1), "tokenport-first-token"):
                    pass
        except TimeoutError as error:
            raise StartError(f"the engine is up but produced no token within {_FIRST_TOKEN_DEADLINE_S:.0f} s") from error


def _parse(arguments: dict[str, Any]) -> Namespace:
    """vLLM's own parser and checks over `arguments`: it knows the types and contradictions that only vLLM can know."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.launchers.launcher import validate_api_server_args
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise SettingsError(_one_line(message))

    args: Namespace = make_arg_parser(Parser()).parse_args(vllm_argv(arguments))
    try:
        if args.tool_parser_plugin:
            ToolParserManager.import_tool_parser(args.tool_parser_plugin)
        if args.reasoning_parser_plugin:
            ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)
        validate_parsed_serve_args(args)
        validate_api_server_args(args)
    except (TypeError, ValueError, KeyError) as error:
        raise SettingsError(_one_line(error)) from error
    return args


async def _on_thread(work: Callable[[], _T]) -> _T:
    """Run `work` on a daemon thread: unlike an executor's, it does not hold up the process when start-up is given up half way."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def finish(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if not done.done():
            set_outcome(outcome)

    def run() -> None:
        try:
            outcome = work()
        except BaseException as error:
            loop.call_soon_threadsafe(finish, done.set_exception, error)
        else:
            loop.call_soon_threadsafe(finish, done.set_result, outcome)

    threading.Thread(target=run, name="engine-start", daemon=True).start()
    return await done


def _end_children() -> None:
    """End the processes that vLLM has started and not ended itself."""
    children = [child for child in psutil.Process().children(recursive=True) if not _is_resource_tracker(child)]
    for child in children:
        child.terminate()
    _, alive = psutil.wait_procs(children, timeout=_STOP_DEADLINE_S)
    for child in alive:
        child.kill()


def _is_resource_tracker(process: psutil.Process) -> bool:
    """multiprocessing's own helper: it ignores SIGTERM, and ends by itself, cleaning up shared memory, when this process has ended."""
    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
