"""What Tokenport changes inside vLLM's processes. vLLM calls `register` in each of them (entry point group `vllm.general_plugins`).

Each change is one function with its reason; all are idempotent, since vLLM may load plugins more than once in a process.
"""

import functools
from collections.abc import Callable, Generator
from typing import Any

_MARK = "replaced_by_tokenport"


def register() -> None:
    """Install the changes. Does nothing twice."""
    _report_weight_loading()
    _leave_discarded_seeds_alone()


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


def _replace(owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    if hasattr(original, _MARK):
        return
    replacement = functools.wraps(original)(make(original))
    setattr(replacement, _MARK, True)
    setattr(owner, name, replacement)
