"""Dense INT8 while the weights load: each linear layer is read in 16 bits, rounded, handed to vLLM's own kernel, and only then the next.

W8A8: a scale for each output channel (`int8_rounding.py`), and one for each token's activations, found as it comes. What it adds to vLLM is
the linear method for a scheme that vLLM can name but not apply; names, ignore patterns, layer-by-layer loading and the experts of a mixture
are vLLM's online quantisation. Runs in the processes that hold the model; what it did is told by `int8_report.py`.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from vllm.model_executor.kernels.linear import init_int8_linear_kernel
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
from vllm.model_executor.layers.fused_moe.oracle.int8 import select_int8_moe_backend
from vllm.model_executor.layers.fused_moe.router.gate_linear import GateLinear
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.online import base
from vllm.model_executor.layers.quantization.online.fp8 import OnlineLinearBase, _is_tp_sharded
from vllm.model_executor.layers.quantization.online.int8 import Int8OnlineMoEMethod
from vllm.model_executor.layers.quantization.utils.quant_utils import (
    amax_for_moe_weight_quant,
    amax_for_tp_weight_quant,
    kInt8DynamicTokenSym,
    kInt8StaticChannelSym,
)
from vllm.model_executor.utils import replace_parameter

from serving.engine.int8_rounding import round_rows, row_maxima, row_scales

_16_BIT = (torch.bfloat16, torch.float16)
_NO_KERNEL = "vLLM has no kernel for experts in INT8 here; on a CPU it has one with AMX, for sizes that 32 divides"
"""Of `CPUExpertsInt8` (vllm/model_executor/layers/fused_moe/experts/cpu_moe.py). What vLLM says itself is to look at its debug log."""


@functools.cache
def install() -> None:
    """Give vLLM's online quantisation a method for linear layers in INT8. Once a process."""
    base._ONLINE_LINEAR_METHODS[kInt8StaticChannelSym] = Int8LinearMethod
    base._ONLINE_MOE_METHODS[kInt8StaticChannelSym] = Int8Experts
    base.OnlineQuantizationConfig.get_quant_method = _sparing_routers(base.OnlineQuantizationConfig.get_quant_method)


def _sparing_routers(original: Callable[..., Any]) -> Callable[..., Any]:
    """A mixture's router is a small matrix of which a rounded number picks another expert, and some models read its weight's type."""

    def get_quant_method(self: Any, layer: torch.nn.Module, prefix: str) -> Any:
        method = original(self, layer, prefix)
        if isinstance(method, Int8LinearMethod) and isinstance(layer, GateLinear):
            del self.quantized_layers[prefix]
            return UnquantizedLinearMethod()
        return method

    return get_quant_method


class LeftAsItIs(UnquantizedLinearMethod):
    """Of a linear layer that could not be quantised, and why."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason
        self._is_processed = False

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Once: vLLM comes here again when all layers are loaded, and what the kernel has repacked cannot be repacked."""
        if not self._is_processed:
            super().process_weights_after_loading(layer)
            self._is_processed = True


class Int8LinearMethod(OnlineLinearBase):
    """One layer's weight in INT8. `weight_bytes` with its scales; some kernels keep it out of the layer's parameters."""

    activation_quant_key = kInt8DynamicTokenSym
    weight_bytes = 0

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra_weight_attrs: Any,
    ) -> None:
        """A weight without storage, which loading fills and hands to `process_weights_after_loading`."""
        shape = (input_size_per_partition, output_partition_sizes, input_size, output_size, params_dtype)
        if params_dtype not in _16_BIT:
            # Computed in FP32 by the model's own choice; the kernels answer in 16 bits.
            _leave(layer, f"is computed in {str(params_dtype).removeprefix('torch.')}").create_weights(layer, *shape, **extra_weight_attrs)
            return
        super().create_weights(layer, *shape, **extra_weight_attrs)
        # The selector of vLLM's compressed-tensors: what is loaded here and what is prepared compute alike.
        self._kernel = init_int8_linear_kernel(
            is_channelwise=True, is_static_input_scheme=False, input_symmetric=True, module_name=type(self).__name__
        )

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Round the weight that has just been loaded, and give it to the kernel in the kernel's own layout."""
        if getattr(layer, "_already_called_process_weights_after_loading", False):
            return
        weight = self.get_weight_for_quantization(layer)
        # A row that is cut between ranks gets one scale for all of them, so that the values are those of the whole weight.
        maxima = amax_for_tp_weight_quant(row_maxima(weight), _is_tp_sharded(layer, reduces_output_dim=False))
        try:
            scales = row_scales(maxima)
        except ValueError as error:
            _leave(layer, str(error)).process_weights_after_loading(layer)
            return
        values = round_rows(weight, scales)
        self.weight_bytes = values.nbytes + scales.nbytes
        del weight
        replace_parameter(layer, "weight", values)
        replace_parameter(layer, "weight_scale", scales)
        for name in ("input_scale", "input_zero_point", "azp_adj"):
            setattr(layer, name, None)
        self._kernel.process_weights_after_loading(layer)
        layer._already_called_process_weights_after_loading = True

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """`x` [tokens, in] in 16 bits to [tokens, out]."""
        return self._kernel.apply_weights(layer, x, bias)


class ExpertsLeftAsTheyAre(UnquantizedFusedMoEMethod):
    """Of a mixture's experts that could not be quantised, and why."""

    def __init__(self, moe: FusedMoEConfig, reason: str) -> None:
        super().__init__(moe)
        self.reason = reason


class Int8Experts(Int8OnlineMoEMethod):
    """vLLM's own method for a mixture's experts, with our rounding: its own is done in 16 bits, not the one of a prepared checkpoint."""

    def __new__(cls, *, moe: FusedMoEConfig) -> Any:
        """What the platform can do: an instance, or `ExpertsLeftAsTheyAre` where vLLM has no kernel for such experts."""
        try:
            select_int8_moe_backend(config=moe)
        except NotImplementedError:
            return ExpertsLeftAsTheyAre(moe, _NO_KERNEL)
        except ValueError as error:
            return ExpertsLeftAsTheyAre(moe, str(error))
        return super().__new__(cls)

    def _quantize_weights(self, layer: torch.nn.Module) -> None:
        for name in ("w13", "w2"):
            weight = getattr(layer, f"{name}_weight")
            maxima = row_maxima(weight.flatten(0, 1))
            if name == "w2":
                # The one of the two whose rows are cut between ranks.
                maxima = amax_for_moe_weight_quant(maxima, self.moe.tp_size)
            scales = row_scales(maxima)
            values = round_rows(weight.flatten(0, 1), scales)
            replace_parameter(layer, f"{name}_weight", values.view(weight.shape))
            replace_parameter(layer, f"{name}_scale", scales.view(weight.shape[:2]))


def _leave(layer: torch.nn.Module, reason: str) -> LeftAsItIs:
    """From now on `layer` is computed as without quantisation."""
    layer.quant_method = method = LeftAsItIs(reason)
    return method
