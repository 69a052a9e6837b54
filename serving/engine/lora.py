"""LoRA adapters on vLLM: registered names stand in vLLM's own list of models, and every sequence takes a lease on its adapter.

Inside the engine an adapter goes by a new name and id each time it is loaded: vLLM's prefix cache tells adapters apart by name, and must
not take what was computed with earlier weights for what the same name means now.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from vllm import envs
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.exceptions import GracefulHTTPError
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from serving.engine.adapter_folder import check_folder, find_folder
from serving.engine.adapters import AdapterStore
from serving.engine.interface import Adapter
from serving.errors import Conflict, EngineFailure, InvalidRequest, NotReady, RequestError, UnknownModel

_CALL_DEADLINE_S = 60.0
"""For the engine to load or drop an adapter, between two of its steps."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,255}")
_MAX_REASON = 600
_FAILED_CALL = "Call to add_lora method failed: "

_Generate = Callable[..., AsyncGenerator[Any, None]]


class LoraAdapters:
    """`Adapters` that are vLLM's. `forbids` says of a folder what in it may not be loaded, None if all may."""

    def __init__(
        self, client: EngineClient, models: OpenAIServingModels, roots: Sequence[str], forbids: Callable[[Path], str | None]
    ) -> None:
        config = client.vllm_config.lora_config
        self._client = client
        self._models = models
        self._roots = [Path(root) for root in roots]
        self._forbids = forbids
        self._max_rank = config.max_lora_rank
        self._requests: dict[int, LoRARequest] = {}
        self._store = AdapterStore(config.max_cpu_loras, self._load, self._unload)
        self._adopt(models.lora_requests, config.max_cpu_loras)
        # The one place that sequences of all routes pass.
        client.generate = self._leasing(client.generate)
        client.encode = self._leasing(client.encode)

    def list(self) -> list[Adapter]:
        """See `Adapters`."""
        return self._store.list()

    async def register(self, name: str, src: str, *, preload: bool, pin: bool) -> None:
        """See `Adapters`."""
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"name: {name!r} is not a name of at most 256 letters, digits and ._:@+- that begins with a letter or digit", param="name"
            )
        if self._models.is_base_model(name):
            raise Conflict(f"{name!r} is the base model's name", param="name")
        folder = await asyncio.to_thread(self._checked, src)
        await self._store.register(name, folder, preload=preload, pin=pin)
        self._models.lora_requests[name] = LoRARequest(name, self._models.lora_id_counter.inc(1), str(folder))

    async def remove(self, name: str) -> None:
        """See `Adapters`."""
        self._models.lora_requests.pop(name, None)
        await self._store.remove(name)

    async def make_ready(self, model: str) -> None:
        """See `Adapters`."""
        if self._models.is_base_model(model):
            return
        if model not in self._store.names:
            if envs.VLLM_SKIP_MODEL_NAME_VALIDATION:
                return
            served = [base.name for base in self._models.base_model_paths]
            known = ", ".join(served + self._store.names)
            raise UnknownModel(f"there is no model or adapter {model!r}; there are: {known}", param="model")
        async with self._store.lease(model):
            pass

    def _checked(self, src: str) -> Path:
        folder = find_folder(src, self._roots)
        if (violation := self._forbids(folder)) is not None:
            raise InvalidRequest(f"src: {violation}", param="src")
        check_folder(folder, self._roots, self._max_rank)
        return folder

    def _adopt(self, requests: Mapping[str, LoRARequest], capacity: int) -> None:
        """Take over the adapters of `lora_modules`. vLLM has loaded them in order, each beyond its capacity in the place of the oldest."""
        self._static = frozenset(requests)
        for position, (name, request) in enumerate(requests.items()):
            is_loaded = position >= len(requests) - capacity
            self._requests[request.lora_int_id] = request
            self._store.adopt(name, Path(request.lora_path), request.lora_int_id if is_loaded else None)

    async def _load(self, name: str, folder: Path) -> int:
        if name not in self._static:
            await asyncio.to_thread(check_folder, folder, self._roots, self._max_rank)
        identifier = self._models.lora_id_counter.inc(1)
        request = LoRARequest(f"{name}@{identifier}", identifier, str(folder))
        try:
            async with asyncio.timeout(_CALL_DEADLINE_S):
                await self._client.add_lora(request)
        except EngineDeadError as error:
            raise NotReady("the engine has died") from error
        except TimeoutError as error:
            await self._drop(identifier)
            raise EngineFailure(f"the engine did not load the adapter {name!r} within {_CALL_DEADLINE_S:.0f} s") from error
        except Exception as error:  # vLLM's only class for whatever happened in the engine
            await self._drop(identifier)
            reason = " ".join(str(error).removeprefix(_FAILED_CALL).split())
            shown = reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]}..."
            raise InvalidRequest(f"src: this is no adapter for this model: {shown}", param="src") from error
        self._requests[identifier] = request
        return identifier

    async def _unload(self, identifier: int) -> None:
        del self._requests[identifier]
        await self._drop(identifier)

    async def _drop(self, identifier: int) -> None:
        """Let the engine forget an adapter, which it may not have."""
        try:
            async with asyncio.timeout(_CALL_DEADLINE_S):
                await self._client.remove_lora(identifier)
        except EngineDeadError as error:
            raise NotReady("the engine has died") from error
        except TimeoutError as error:
            raise EngineFailure(f"the engine did not drop an adapter within {_CALL_DEADLINE_S:.0f} s") from error

    def _leasing(self, generate: _Generate) -> _Generate:
        def leasing(*args: Any, lora_request: LoRARequest | None = None, **kwargs: Any) -> AsyncGenerator[Any, None]:
            if lora_request is None:
                return generate(*args, **kwargs)
            return leased(lora_request, *args, **kwargs)

        async def leased(lora_request: LoRARequest, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    identifier = await stack.enter_async_context(self._store.lease(lora_request.lora_name))
                except RequestError as error:
                    # By this class vLLM's handlers let a status through.
                    raise GracefulHTTPError(error.message, HTTPStatus(error.status)) from error
                outputs = generate(*args, lora_request=self._requests[identifier], **kwargs)
                await stack.enter_async_context(contextlib.aclosing(outputs))
                async for output in outputs:
                    yield output

        return leasing
