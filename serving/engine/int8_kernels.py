"""Where vLLM 0.32 gives an INT8 layer to a kernel that cannot do it, or that leaves it in a state which others trip over.

For weights that are quantised here while they load and for those of a prepared checkpoint alike, in the processes that hold the model.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from vllm.model_executor.kernels.linear.scaled_mm.cpu import CPUInt8ScaledMMLinearKernel
from vllm.model_executor.kernels.linear.scaled_mm.cutlass import CutlassInt8ScaledMMLinearKernel
from vllm.platforms import current_platform

_BLACKWELL = 100
"""Compute capability 10.0. From there on vLLM's CUTLASS says `Int8 not supported on SM...` (`dispatch_scaled_mm`, scaled_mm_helper.hpp)."""


@functools.cache
def mend() -> None:
    """Once a process."""
    CutlassInt8ScaledMMLinearKernel.is_supported = classmethod(_cutlass_is_supported)
    kernel = CPUInt8ScaledMMLinearKernel
    kernel.process_weights_after_loading = _without_sgl_in_fp16(kernel.process_weights_after_loading)
    kernel.process_weights_for_onednn = _with_a_place_for_the_weight(kernel.process_weights_for_onednn)


def _cutlass_is_supported(_cls: type, compute_capability: int | None = None) -> tuple[bool, str | None]:
    """As vLLM's, but not on the newest GPUs: there the selector comes to Triton. CUTLASS would fail at the first token."""
    if not current_platform.is_cuda():
        return False, "requires CUDA."
    if compute_capability is None and (found := current_platform.get_device_capability()) is not None:
        compute_capability = found.to_int()
    if compute_capability is not None and compute_capability >= _BLACKWELL:
        return False, "CUTLASS has no INT8 from Blackwell on."
    return True, None


def _without_sgl_in_fp16(original: Callable[..., None]) -> Callable[..., None]:
    """On a CPU with AMX the layer goes to a kernel that has BF16 only: at the first FP16 token the process aborts. oneDNN has both."""

    def process_weights_after_loading(self: Any, layer: torch.nn.Module) -> None:
        if torch.get_default_dtype() == torch.float16:
            self.linear_method = self._apply_weights_onednn
            self.process_weights_for_onednn(layer)
        else:
            original(self, layer)

    return process_weights_after_loading


def _with_a_place_for_the_weight(original: Callable[..., None]) -> Callable[..., None]:
    """oneDNN keeps the weight to itself, and vLLM leaves None where it was: LoRA asks there for the device, and the start fails."""

    def process_weights_for_onednn(self: Any, layer: torch.nn.Module) -> None:
        original(self, layer)
        layer.weight = torch.nn.Parameter(torch.empty(0, dtype=torch.int8), requires_grad=False)

    return process_weights_for_onednn
