"""vLLM in this process: start, generate, health, stop. The steps of a start: find the model, launch vLLM (`launch.py`), first token.

The blocking steps run on a thread of their own, so that the event loop answers `/ping` meanwhile; vLLM's engine core is a child process.
vLLM is imported inside the methods: importing takes seconds, which must not pass before the socket is open.
"""

import asyncio
import contextlib
import functools
import logging
import threading
import uuid
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
from starlette.types import ASGIApp

from serving.engine.checksums import Verification, verify
from serving.engine.environment import runs_on_cpu
from serving.engine.fetch import fetch
from serving.engine.interface import Adapters, Capacity, Chunks, Kind, Memory, Planned, Report
from serving.engine.launch import launch
from serving.engine.ledger import Ledger
from serving.engine.loaders import check_loader
from serving.engine.model_source import ModelSource
from serving.engine.postmortem import Postmortem
from serving.engine.preload import EarlyProcess
from serving.engine.progress import ProgressListener
from serving.engine.work import Work
from serving.errors import EngineDead, NotReady, StartError
from serving.secure_mode import adapter_violation
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.engine.client import Client
    from serving.engine.lora import LoraAdapters
    from serving.engine.openai import OpenAILayer

logger = logging.getLogger("tokenport.engine")

_T = TypeVar("_T")
_FIRST_TOKEN_DEADLINE_S = 300.0
_MEASUREMENT_DEADLINE_S = 10.0
_DEATH_POLL_S = 0.25
_STOP_DEADLINE_S = 1.0
"""SageMaker kills 30 s after SIGTERM, of which draining takes 25: what has nothing left to do is not waited for."""


class VllmEngine:
    """An `Engine` that is vLLM. `check_folder` is called with the model's folder, or its name on the hub, before it is loaded."""

    def __init__(
        self,
        settings: Settings,
        source: ModelSource,
        early: EarlyProcess | None = None,
        check_folder: Callable[[Path], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._early = early
        self._check_folder = check_folder
        self._client: Client | None = None
        self._layer: OpenAILayer | None = None
        self._adapters: LoraAdapters | None = None
        self._postmortem: Postmortem | None = None
        self._checksums: Verification | None = None
        self._resources = contextlib.ExitStack()
        self._ledger = Ledger(lambda: self._launched.measure_memory())
        self._planned: Planned | None = None
        self.work = Work()

    @property
    def capacity(self) -> Capacity:
        """See `Engine`."""
        config = self._launched.vllm_config
        return Capacity(config.scheduler_config.max_num_seqs, config.cache_config.kv_cache_size_tokens or 0)

    @property
    def model_names(self) -> list[str]:
        """See `Engine`."""
        return self._started.model_names

    @property
    def adapters(self) -> Adapters | None:
        """See `Engine`."""
        return self._adapters

    @property
    def openai_app(self) -> ASGIApp:
        """See `Engine`."""
        return self._started.app

    @property
    def _launched(self) -> "Client":
        if self._client is None:
            raise EngineDead("the engine has not been started")
        return self._client

    @property
    def _started(self) -> "OpenAILayer":
        if self._layer is None:
            raise EngineDead("the engine has not been started")
        return self._layer

    def openapi(self) -> dict[str, Any]:
        """See `Engine`."""
        return self._started.app.openapi()

    async def start(self, report: Report) -> None:
        """See `Engine`."""
        loop = asyncio.get_running_loop()
        progress = self._resources.enter_context(ProgressListener(report))
        loop.add_reader(progress.fileno(), progress.drain)
        self._resources.callback(loop.remove_reader, progress.fileno())
        self._postmortem = Postmortem(self._settings.engine, on_cpu=runs_on_cpu(), progress=progress)
        try:
            args = await _on_thread(lambda: self._launch(report, progress.path))
            from serving.engine.openai import OpenAILayer

            self._layer = await OpenAILayer.create(self._launched, args)
            self._adapters = self._lora_adapters()
            report("producing the first token", None)
            await self._first_token()
            await self._first_measurement()
            await self._verified(report)
        except StartError:
            raise
        except Exception as error:
            logger.debug("the engine did not start", exc_info=error)
            if self._checksums is not None and (failure := self._checksums.failure()) is not None:
                raise failure from error
            raise self._postmortem.start_error(error, self._exit_codes()) from error

    async def generate(self, kind: Kind, body: dict[str, Any], request_id: str) -> bytes | Chunks:
        """See `Engine`."""
        model = body.get("model")
        if self._adapters is not None and isinstance(model, str) and model:
            await self._adapters.make_ready(model)
        return await self._started.generate(kind, body, request_id)

    async def probe(self) -> None:
        """See `Engine`."""
        from vllm import SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError

        prompt: Any = {"prompt_token_ids": [0]}
        try:
            async for _ in self._launched.generate(prompt, SamplingParams(max_tokens=1), f"tokenport-probe-{uuid.uuid4().hex}"):
                pass
        except EngineDeadError as error:
            raise EngineDead("the engine died before it produced a token") from error

    async def memory(self, deadline_s: float) -> Memory:
        """See `Engine`."""
        return replace(await self._ledger.read(deadline_s), planned=self._planned)

    async def wait_dead(self) -> str:
        """See `Engine`. Reads flags that monitors of the child processes set; the engine itself is not asked."""
        assert self._postmortem is not None  # noqa: S101 - made by start
        while not self._launched.errored:
            if self._postmortem.has_lost_worker():
                # vLLM gets there by itself, but only after waiting several seconds for the workers that are left.
                self._launched.give_up()
            await asyncio.sleep(_DEATH_POLL_S)
        return self._postmortem.death(self._exit_codes())

    def _exit_codes(self) -> dict[str, int]:
        """Of the engine core processes that have ended; negative for a signal."""
        manager = self._client.engine_core.resources.engine_manager if self._client is not None else None
        return manager.finished_procs() if manager is not None else {}

    async def stop(self) -> None:
        """See `Engine`."""
        if self._client is not None:
            if self._client.output_handler is not None:
                # Otherwise it would take the end that is coming for a death, and say so in the log.
                self._client.output_handler.cancel()
            await asyncio.to_thread(self._client.shutdown, _STOP_DEADLINE_S)
        await asyncio.to_thread(_end_children)
        self._resources.close()

    def _launch(self, report: Report, progress_socket: str) -> Namespace:
        """Find the model, then launch the engine on it."""
        settings = self._settings
        check_loader(settings.engine, on_cpu=runs_on_cpu(), weights_on_s3=self._source.kind == "s3")
        fetched = fetch(self._source, settings, report)
        self._check_folder(Path(fetched.location))
        self._checksums = verify(Path(fetched.location), with_hashes=settings.verify_checksums, is_whole=fetched.is_whole)
        served_name = self._source.served_name
        launched = launch(settings, fetched, served_name, work=self.work, early=self._early, progress_socket=progress_socket, report=report)
        self._client, self._planned = launched.client, launched.planned
        return launched.args

    def _lora_adapters(self) -> "LoraAdapters | None":
        if self._launched.vllm_config.lora_config is None:
            return None
        from serving.engine.lora import LoraAdapters

        models = self._started.app.state.openai_serving_models
        forbids = functools.partial(adapter_violation, self._settings)
        return LoraAdapters(self._launched, models, self._settings.adapter_roots, forbids)

    async def _first_measurement(self) -> None:
        """Before there is traffic, so that what the engine has at rest is known. It serves as well without."""
        try:
            await self._ledger.read(_MEASUREMENT_DEADLINE_S)
        except NotReady as error:
            logger.warning("the memory could not be measured", extra={"reason": error.message})

    async def _verified(self, report: Report) -> None:
        """Nothing is answered from weights that are not what their list says."""
        if self._checksums is not None and self._checksums.num_files:
            report("verifying checksums", None)
            await _on_thread(self._checksums.wait)
            logger.info("checksums verified", extra={"files": self._checksums.num_files, "seconds": round(self._checksums.seconds, 1)})

    async def _first_token(self) -> None:
        try:
            async with asyncio.timeout(_FIRST_TOKEN_DEADLINE_S):
                await self.probe()
        except TimeoutError as error:
            raise StartError(f"the engine is up but produced no token within {_FIRST_TOKEN_DEADLINE_S:.0f} s") from error


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
