"""What Tokenport changes inside vLLM's processes. vLLM calls `register` in each of them (entry point group `vllm.general_plugins`).

Each change is one function with its reason; all are idempotent, since vLLM may load plugins more than once in a process.
"""

import functools
from collections.abc import Callable, Generator
from typing import Any

_MARK = "replaced_by_tokenport"


def register() -> None:
    """Install the changes. Does nothing twice."""
    _tell_failures()
    _tell_what_memory_lacks()
    _report_weight_loading()
    _leave_discarded_seeds_alone()
    _refuse_adapters_that_do_not_fit()
    _keep_adapters_off_base_rows()


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


def _tell_what_memory_lacks() -> None:
    """Where the weights leave nothing for the KV cache, vLLM says so without a number. The CPU's worker gives them by itself."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return
    from vllm.v1.worker.gpu_worker import Worker

    from serving.engine.diagnosis import memory_shortage

    def measuring(original: Callable[..., Any]) -> Callable[..., Any]:
        def determine_available_memory(self: Any) -> int:
            available_bytes: int = original(self)
            if available_bytes <= 0:
                raise ValueError(memory_shortage(self.requested_memory, available_bytes))
            return available_bytes

        return determine_available_memory

    _replace(Worker, "determine_available_memory", measuring)


def _report_weight_loading() -> None:
    """vLLM tells the progress of loading on a terminal only; count the bytes as they pass and send them to the server's `/ping`."""
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    from serving.engine.loading import counted_weights

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def get_all_weights(self: Any, model_config: Any, model: Any) -> Generator[tuple[str, Any], None, None]:
            yield from counted_weights(original(self, model_config, model), model_config.model)

        return get_all_weights

    _replace(DefaultModelLoader, "get_all_weights", counting)


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


def _replace(owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    if hasattr(original, _MARK):
        return
    replacement = functools.wraps(original)(make(original))
    setattr(replacement, _MARK, True)
    setattr(owner, name, replacement)
