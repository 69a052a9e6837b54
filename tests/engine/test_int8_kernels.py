"""Which kernel vLLM gives INT8 layers to, where its own choice would fail."""

import pytest
import torch
from vllm.model_executor.kernels import linear
from vllm.model_executor.kernels.linear.scaled_mm.cpu import CPUInt8ScaledMMLinearKernel
from vllm.model_executor.kernels.linear.scaled_mm.ScaledMMLinearKernel import Int8ScaledMMLinearLayerConfig
from vllm.platforms import PlatformEnum, current_platform

from serving.engine import int8_kernels
from serving.engine.int8_rounding import quantize_rows

pytestmark = pytest.mark.engine

PER_CHANNEL = Int8ScaledMMLinearLayerConfig(is_channelwise=True, is_static_input_scheme=False, input_symmetric=True)
NAMES = ["weight", "weight_scale", "input_scale", "input_zero_point", "azp_adj"]


@pytest.fixture(scope="module", autouse=True)
def mended() -> None:
    int8_kernels.mend()


@pytest.mark.parametrize(("capability", "kernel"), [(75, "Cutlass"), (80, "Cutlass"), (90, "Cutlass"), (100, "Triton"), (120, "Triton")])
def test_from_blackwell_on_triton_takes_the_place_of_cutlass(monkeypatch, capability, kernel):
    monkeypatch.setattr(type(current_platform), "_enum", PlatformEnum.CUDA)
    chosen = linear.choose_scaled_mm_linear_kernel(PER_CHANNEL, linear._POSSIBLE_INT8_KERNELS, capability, quantization="int8_w8a8")
    assert chosen.__name__ == f"{kernel}Int8ScaledMMLinearKernel"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("num_out", "num_in"), [(64, 64), (5, 7)])
def test_the_cpu_computes_in_both_16_bit_types_and_any_shape(dtype, num_out, num_in):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        weight, x = torch.randn(num_out, num_in), torch.randn(3, num_in)
        layer = torch.nn.Module()
        layer.weight, layer.weight_scale = (torch.nn.Parameter(part, requires_grad=False) for part in quantize_rows(weight))
        layer.input_scale = layer.input_zero_point = layer.azp_adj = layer.bias = None
        layer.logical_widths = [num_out]
        kernel = CPUInt8ScaledMMLinearKernel(PER_CHANNEL, layer_param_names=NAMES)
        kernel.process_weights_after_loading(layer)
        expected = x.float() @ weight.float().T
        torch.testing.assert_close(kernel.apply_weights(layer, x).float(), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
        # LoRA asks the weight for its device.
        assert layer.weight.device == torch.device("cpu")
    finally:
        torch.set_default_dtype(before)
