"""What Tokenport changes in vLLM 0.32 on the CPU, where it has faults of its own, and costs that only CUDA makes necessary."""

from collections.abc import Callable
from typing import Any

from serving.engine.replacing import replace


def install() -> None:
    """Make the changes; see `plugin.py`. None elsewhere than on the CPU."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _ask_for_amx()
        _leave_discarded_seeds_alone()
        _keep_adapters_off_base_rows()
        _look_at_the_model_here()


def _ask_for_amx() -> None:
    """A process has to ask Linux for AMX. oneDNN does, on its first matrix; vLLM 0.32's attention does not, and a model so small that no
    matrix of it goes to oneDNN ended by an illegal instruction."""
    import torch

    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()


def _leave_discarded_seeds_alone() -> None:
    """A seeded request whose prompt is split over several steps kills vLLM 0.32's CPU engine.

    Every step samples for every row; of a row whose prompt is not finished the sample is thrown away, and the row's generator is wound back
    by `Generator.set_offset`, which only CUDA's generators have: on the CPU it raises, and the engine dies. While a step samples, the
    generators of such rows are set aside here, so nothing is drawn from them and nothing has to be wound back: the same tokens for the
    same seed, however the prompt was split.
    """
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

    replace(CPUModelRunner, "sample_tokens", sparing)


def _keep_adapters_off_base_rows() -> None:
    """See `cpu_lora.py`: vLLM 0.32's CPU kernels mix an adapter into requests to the base model."""
    from serving.engine import cpu_lora

    cpu_lora.register()


def _look_at_the_model_here() -> None:
    """What a model's class can do, vLLM finds out in a further process, so that CUDA stays untouched in this one: once for each class and
    cache folder, for the price of all imports again. Without CUDA it can look here."""
    from vllm.model_executor.models import registry

    replace(registry, "_run_in_subprocess", lambda _original: lambda look: look())
