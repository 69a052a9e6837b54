"""What Tokenport changes inside vLLM's processes. vLLM calls `register` in each of them (entry point group `vllm.general_plugins`).

Each change is one function with its reason; all are idempotent, since vLLM may load plugins more than once in a process.
"""

import copy
import functools
import inspect
import math
from collections.abc import Callable, Generator
from typing import Any

_MARK = "replaced_by_tokenport"


def register() -> None:
    """Install the changes. Does nothing twice."""
    _tell_failures()
    _tell_how_a_core_ended()
    _tell_what_memory_lacks()
    _report_weight_loading()
    _watch_all_loaders()
    _find_compiled_again()
    _load_compiled_again()
    _offer_int8()
    _divide_any_vocabulary()
    _ask_for_amx()
    _leave_discarded_seeds_alone()
    _refuse_adapters_that_do_not_fit()
    _keep_adapters_off_base_rows()
    _look_at_the_model_here()
    _size_the_kv_cache()
    _prepare_workers()
    _read_ranks()


def _tell_failures() -> None:
    """What ends an engine process is lost on its way to the server, or printed as plain text; see `failures.py`.

    The main functions are replaced, by functions that a spawned process finds by their own names, where the process is started.
    """
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor.multiproc_executor import WorkerProc

    from serving.engine import failures

    for owner, ours in (
        (EngineCoreProc, failures.run_engine_core),
        (WorkerProc, failures.worker_main),
        (WorkerProc, failures.wait_for_ready),
    ):
        name = ours.__name__
        if name not in failures.originals:
            failures.originals[name] = getattr(owner, name)
            setattr(owner, name, staticmethod(ours))


def _tell_how_a_core_ended() -> None:
    """A process that is killed closes its pipe a moment before it has an exit code. vLLM asks in between, and finds that none has ended."""
    from vllm.v1.engine.utils import CoreEngineProcManager

    from serving.engine.failures import join_ended

    def joining(original: Callable[..., Any]) -> Callable[..., Any]:
        def finished_procs(self: Any) -> dict[str, int]:
            join_ended(self.processes)
            found: dict[str, int] = original(self)
            return found

        return finished_procs

    _replace(CoreEngineProcManager, "finished_procs", joining)


def _tell_what_memory_lacks() -> None:
    """Where the weights leave nothing for the KV cache, vLLM says so without a number. The CPU's worker gives them by itself."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return
    from vllm.v1.worker.gpu_worker import Worker

    from serving.engine.diagnosis.memory import memory_shortage

    def measuring(original: Callable[..., Any]) -> Callable[..., Any]:
        def determine_available_memory(self: Any) -> int:
            available_bytes: int = original(self)
            if available_bytes <= 0:
                raise ValueError(memory_shortage(self.requested_memory, available_bytes))
            return available_bytes

        return determine_available_memory

    _replace(Worker, "determine_available_memory", measuring)


def _report_weight_loading() -> None:
    """vLLM tells the progress of loading on a terminal only; count the bytes as they pass and send them to the server's `/ping`. What the
    plan pads is padded on the same way; see `padding.py`."""
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
    from vllm.v1.engine.core import EngineCore

    from serving.engine.loading import counted_weights
    from serving.engine.padding import padded_weights
    from serving.engine.progress import send_progress

    def telling(original: Callable[..., Any]) -> Callable[..., Any]:
        def init(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
            send_progress(vllm_config.additional_config, "building the model")
            original(self, vllm_config, *args, **kwargs)

        return init

    _replace(EngineCore, "__init__", telling)

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def get_all_weights(self: Any, model_config: Any, model: Any) -> Generator[tuple[str, Any], None, None]:
            weights = counted_weights(original(self, model_config, model), model_config.model)
            yield from padded_weights(weights, model_config.model)

        return get_all_weights

    _replace(DefaultModelLoader, "get_all_weights", counting)


def _watch_all_loaders() -> None:
    """See `loader_changes.py`: progress of every loader, and no pickle that nobody asked for."""
    from serving.engine import loader_changes

    loader_changes.install(_replace)


def _find_compiled_again() -> None:
    """vLLM finds what it has compiled by a hash of its whole configuration. The socket in it, each start's own, has no part in what is
    compiled."""
    from vllm.config import VllmConfig

    from serving.engine.progress import lasting

    def without_this_start(original: Callable[..., Any]) -> Callable[..., Any]:
        def compute_hash(self: Any, *args: Any, **kwargs: Any) -> Any:
            config = copy.copy(self)
            config.additional_config = lasting(self.additional_config)
            return original(config, *args, **kwargs)

        return compute_hash

    _replace(VllmConfig, "compute_hash", without_this_start)


def _load_compiled_again() -> None:
    """What Inductor compiled as a whole, as vLLM 0.32 has it do for the CPU, is complete when it is read; vLLM goes on to complete it, like
    the pieces it has on a GPU, which fails, and compiles anew at every start."""
    import torch
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return

    def completing(original: Callable[..., Any]) -> Callable[..., Any]:
        def load_compiled_function(*args: Any, **kwargs: Any) -> Any:
            loaded: Any = original(*args, **kwargs)
            compiled = loaded._artifacts.compiled_fn
            if not hasattr(compiled, "finalize_loading"):
                compiled.finalize_loading = lambda _vllm_config: None
            return loaded

        return load_compiled_function

    _replace(torch.compiler, "load_compiled_function", completing)


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

    _replace(VocabParallelEmbedding, "__init__", dividing)


def _offer_int8() -> None:
    """See `int8_setting.py`: vLLM quantises only a mixture's experts to INT8 while loading, and leaves linear layers in 16 bits unsaid."""
    from serving.engine import int8_setting

    int8_setting.install(_replace)


def _ask_for_amx() -> None:
    """A process has to ask Linux for AMX. oneDNN does, on its first matrix; vLLM 0.32's attention does not, and a model so small that no
    matrix of it goes to oneDNN ended by an illegal instruction."""
    import torch
    from vllm.platforms import current_platform

    if current_platform.is_cpu() and torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()


def _leave_discarded_seeds_alone() -> None:
    """A seeded request whose prompt is split over several steps kills vLLM 0.32's CPU engine.

    Every step samples for every row; of a row whose prompt is not finished the sample is thrown away, and the row's generator is wound back
    by `Generator.set_offset`, which only CUDA's generators have: on the CPU it raises, and the engine dies. While a step samples, the
    generators of such rows are set aside here, so nothing is drawn from them and nothing has to be wound back: the same tokens for the
    same seed, however the prompt was split.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    def sparing(original: Callable[..., Any]) -> Callable[..., Any]:
        def sample_tokens(self: Any, *args: Any, **kwargs: Any) -> Any:
            generators = self.input_batch.generators
            discarded = self.discard_request_mask.np[: self.input_batch.num_reqs]
            set_aside = {row: generators.pop(row) for row in list(generators) if discarded[row]}
            try:
                return original(self, *args, **kwargs)
            finally:
                generators.update(set_aside)

        return sample_tokens

    _replace(CPUModelRunner, "sample_tokens", sparing)


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

    _replace(WorkerLoRAManager, "_load_adapter", checking)


def _keep_adapters_off_base_rows() -> None:
    """See `cpu_lora.py`: vLLM 0.32's CPU kernels mix an adapter into requests to the base model."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from serving.engine import cpu_lora

        cpu_lora.register()


def _look_at_the_model_here() -> None:
    """What a model's class can do, vLLM finds out in a further process, so that CUDA stays untouched in this one: once for each class and
    cache folder, for the price of all imports again. Without CUDA it can look here."""
    from vllm.model_executor.models import registry
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _replace(registry, "_run_in_subprocess", lambda _original: lambda look: look())


def _size_the_kv_cache() -> None:
    """See `kv_cache_size.py`: vLLM takes the size of the KV cache in bytes, or as what a fraction of the memory leaves."""
    from serving.engine import kv_cache_size

    kv_cache_size.install_in_core(_replace)


def _prepare_workers() -> None:
    """See `ledger_worker.py`: of what is in memory vLLM tells the KV cache, and most of the rest as text in its log. Installed when a
    worker begins, since the server's process, which loads plugins too, needs none of the worker's modules."""
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    from serving.engine import kv_cache_size, ledger_worker

    def preparing(original: Callable[..., Any]) -> Callable[..., Any]:
        def init_device(self: Any) -> None:
            kv_cache_size.install_in_worker(_replace)
            ledger_worker.install(_replace)
            original(self)

        return init_device

    _replace(WorkerWrapperBase, "init_device", preparing)


def _read_ranks() -> None:
    """See `presharded/`: vLLM's `sharded_state` keeps weights as its kernels repacked them, which INT8 and the CPU cannot load again."""
    from vllm.model_executor import model_loader

    from serving.engine.presharded.loader import RankLoader
    from serving.engine.presharded.manifest import LOAD_FORMAT

    if LOAD_FORMAT not in model_loader._LOAD_FORMAT_TO_MODEL_LOADER:  # it would warn
        model_loader.register_model_loader(LOAD_FORMAT)(RankLoader)


def _replace(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    # Several changes of one function are stacked; each is made once.
    made: frozenset[str] = getattr(original, _MARK, frozenset())
    change = f"{make.__module__}.{make.__qualname__}"
    if change in made:
        return
    replacement = functools.wraps(original)(make(original))
    setattr(replacement, _MARK, made | {change})
    setattr(owner, name, replacement)
