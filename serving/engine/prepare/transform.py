"""What becomes of each tensor on its way from the source to the prepared checkpoint. How it is written is not known here (`writing.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from serving.engine.prepare.checkpoint import TensorInfo
from serving.engine.prepare.layers import Layers
from serving.errors import ModelUnavailable

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING_SLACK = 1e-3
"""Of half a step: the division and the product that are compared are rounded to FP32."""
_CHECKED_ROWS_ELEMENTS = 2**22


@dataclass(frozen=True)
class Output:
    """A tensor to write, known before any weight is read. `dtype` is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LayerError:
    """What rounding did to one layer. `relative_error`: norm of the error over norm of the weight. `outlier_ratio`: largest magnitude over
    root mean square; for normal numbers about 4 to 6."""

    layer: str
    relative_error: float
    outlier_ratio: float


class Transform(Protocol):
    """One way to prepare: all that a writer has to know about it."""

    def outputs(self, info: TensorInfo) -> Sequence[Output]:
        """What this tensor becomes."""

    def is_copied(self, info: TensorInfo) -> bool:
        """Whether its bytes are written as they are; `convert` and `check` are not called then."""

    def convert(self, info: TensorInfo, tensor: "Tensor") -> dict[str, "Tensor"]:
        """The outputs of a tensor that changes, by name. Raises `ModelUnavailable` naming the layer where it cannot be."""

    def check(self, info: TensorInfo, tensor: "Tensor", written: dict[str, "Tensor"]) -> LayerError | None:
        """Compare what was read back with the source; None for what is no layer. Raises `ModelUnavailable` where they differ too much."""


class Int8:
    """Weights of the chosen layers as INT8 with a scale a row, as compressed-tensors stores them (`int-quantized`)."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers

    def outputs(self, info: TensorInfo) -> list[Output]:
        """The INT8 weight, its scales; any other tensor stays."""
        layer = info.name.removesuffix(".weight")
        if self._stays(info):
            return [Output(info.name, info.dtype, info.shape)]
        return [Output(info.name, "I8", info.shape), Output(f"{layer}.weight_scale", "F32", (info.shape[0], 1))]

    def is_copied(self, info: TensorInfo) -> bool:
        """All but the weights of the chosen layers."""
        return self._stays(info)

    def _stays(self, info: TensorInfo) -> bool:
        layer = info.name.removesuffix(".weight")
        return layer == info.name or layer not in self._layers.quantized

    def convert(self, info: TensorInfo, tensor: "Tensor") -> dict[str, "Tensor"]:
        """Rounded by the one rule that loading uses too."""
        from serving.engine.int8_rounding import quantize_rows

        try:
            values, scales = quantize_rows(tensor)
        except ValueError as error:
            raise ModelUnavailable(f"{info.name} cannot be quantised: {error}; keep it with --ignore, or copy the model anew") from error
        return {info.name: values, f"{info.name}_scale": scales}

    def check(self, info: TensorInfo, tensor: "Tensor", written: dict[str, "Tensor"]) -> LayerError | None:
        """Each value within half a step of the source, a few rows at a time."""
        values, scales = written[info.name], written[f"{info.name}_scale"]
        error_sum = weight_sum = largest = 0.0
        num_rows = max(1, _CHECKED_ROWS_ELEMENTS // max(1, tensor.shape[1]))
        for start in range(0, tensor.shape[0], num_rows):
            rows = slice(start, start + num_rows)
            exact = tensor[rows].float()
            error = (values[rows].float() * scales[rows] - exact).abs_()
            if bool((error > scales[rows] * (0.5 + _ROUNDING_SLACK)).any()):
                raise ModelUnavailable(f"{info.name}: what was read back is not what was written; look after this disk")
            error_sum += float(error.double().square_().sum())
            weight_sum += float(exact.double().square().sum())
            largest = max(largest, float(exact.abs().max()))
        mean_square = weight_sum / tensor.numel()
        return LayerError(
            info.name.removesuffix(".weight"),
            (error_sum / weight_sum) ** 0.5 if weight_sum else 0.0,
            largest / mean_square**0.5 if mean_square else 0.0,
        )


def quantization_config(layers: Layers) -> dict[str, Any]:
    """What config.json says of the checkpoint, in compressed-tensors' words: INT8 weights a row, INT8 activations a token as they come."""
    common = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": None, "block_structure": None, "actorder": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": common | {"strategy": "channel", "dynamic": False, "observer": "minmax", "observer_kwargs": {}},
                "input_activations": common | {"strategy": "token", "dynamic": True, "observer": None, "observer_kwargs": {}},
                "output_activations": None,
            }
        },
        "ignore": layers.ignore,
    }
