"""What Tokenport changes inside vLLM's processes. vLLM calls `register` in each of them (entry point group `vllm.general_plugins`).

Each change is one function with its reason; all are idempotent, since vLLM may load plugins more than once in a process. vLLM is imported
by the changes, each what it needs, not with this module: a process sets up its log first (`failures.py`).
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

from serving.engine import compile_changes, cpu_changes, failure_changes
from serving.engine.replacing import replace


def register() -> None:
    """Install the changes. Does nothing twice."""
    failure_changes.install()
    _change_loaders()
    compile_changes.install()
    _offer_int8()
    _divide_any_vocabulary()
    cpu_changes.install()
    _refuse_adapters_that_do_not_fit()
    _size_the_kv_cache()
    _prepare_workers()


def _change_loaders() -> None:
    """See `loader_changes.py`: progress of every loader, no pickle that nobody asked for, and a loader of each rank's own files."""
    from serving.engine import loader_changes

    loader_changes.install()


def _offer_int8() -> None:
    """See `int8_setting.py`: vLLM quantises only a mixture's experts to INT8 while loading, and leaves linear layers in 16 bits unsaid."""
    from serving.engine import int8_setting

    int8_setting.install()


def _divide_any_vocabulary() -> None:
    """vLLM fills a vocabulary up to a multiple of 64, which three or six ranks seldom divide: fill it up to one that they do."""
    from vllm.distributed import get_tensor_model_parallel_world_size
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    def dividing(original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        def __init__(*args: Any, **kwargs: Any) -> None:
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            if not call.arguments["disable_tp"] and call.arguments["parallel_group"] is None:
                multiple = call.arguments["padding_size"]
                # A power of two of ranks divides 64, and a checkpoint's own sizes stay as vLLM has them.
                call.arguments["padding_size"] = math.lcm(multiple, get_tensor_model_parallel_world_size())
            original(*call.args, **call.kwargs)

        return __init__

    replace(VocabParallelEmbedding, "__init__", dividing)


def _refuse_adapters_that_do_not_fit() -> None:
    """See `lora_fit.py`: the engine must not count an adapter as loaded whose weights have another shape."""
    from vllm.lora.worker_manager import WorkerLoRAManager

    def checking(original: Callable[..., Any]) -> Callable[..., Any]:
        def load_adapter(self: Any, lora_request: Any) -> Any:
            from serving.engine.lora_fit import check_fit

            lora = original(self, lora_request)
            check_fit(lora, self._adapter_manager)
            return lora

        return load_adapter

    replace(WorkerLoRAManager, "_load_adapter", checking)


def _size_the_kv_cache() -> None:
    """See `kv_cache_size.py`: vLLM takes the size of the KV cache in bytes, or as what a fraction of the memory leaves."""
    from serving.engine import kv_cache_size

    kv_cache_size.install_in_core()


def _prepare_workers() -> None:
    """See `ledger_worker.py`: of what is in memory vLLM tells the KV cache, and most of the rest as text in its log. Installed when a
    worker begins, since the server's process, which loads plugins too, needs none of the worker's modules."""
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    from serving.engine import kv_cache_size, ledger_worker

    def preparing(original: Callable[..., Any]) -> Callable[..., Any]:
        def init_device(self: Any) -> None:
            kv_cache_size.install_in_worker()
            ledger_worker.install()
            original(self)

        return init_device

    replace(WorkerWrapperBase, "init_device", preparing)
