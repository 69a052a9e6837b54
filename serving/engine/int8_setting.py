"""Makes `quantization=int8` known to vLLM, beside its own shorthands for quantisation while loading, and prepares a load that is quantised.

Light: in the server's process only names are given. The methods (`int8.py`) are imported by the processes that load a model, when they do.
"""

import ctypes
import logging
from collections.abc import Callable
from typing import Any

from vllm.config import ModelConfig
from vllm.config import quantization as known
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from serving.engine.quantization import INT8
from serving.engine.replacing import replace

logger = logging.getLogger("tokenport.engine")


def install() -> None:
    """Make the name known and the changes; see `plugin.py`."""
    if INT8 not in QUANTIZATION_METHODS:
        QUANTIZATION_METHODS.append(INT8)
        spec = known.QuantSpec(weight=known.kInt8StaticChannelSym)
        known._ONLINE_SHORTHANDS[INT8] = known.QuantizationConfigArgs(linear=spec, moe=spec)
        known.ONLINE_QUANT_SHORTHAND_NAMES = (*known.ONLINE_QUANT_SHORTHAND_NAMES, INT8)
    replace(ModelConfig, "_verify_quantization", _settling)
    replace(BaseModelLoader, "load_model", _preparing)


def _settling(original: Callable[..., Any]) -> Callable[..., Any]:
    """A checkpoint that is quantised already is left alone; vLLM would not start."""

    def _verify_quantization(self: Any) -> None:
        checkpoint = self.model_arch_config.quantization_config
        if self.quantization == INT8 and checkpoint is not None:
            method = checkpoint.get("quant_method")
            logger.warning("quantization=int8 has no effect: the checkpoint is quantised already, by %s", method)
            self.quantization = self.quantization_config = None
        elif self.quantization == INT8:
            # vLLM has done this before, but before it loaded its plugins: it did not know the name then.
            self.quantization_config = known.resolve_quantization_config(INT8, self.quantization_config)
        original(self)

    return _verify_quantization


def _preparing(original: Callable[..., Any]) -> Callable[..., Any]:
    """What loads weights for INT8 kernels, from a checkpoint in INT8 too, has to have them mended."""

    def load_model(self: Any, vllm_config: Any, model_config: Any, *args: Any, **kwargs: Any) -> Any:
        if vllm_config.quant_config is None:
            return original(self, vllm_config, model_config, *args, **kwargs)
        from serving.engine import int8, int8_kernels, int8_report

        int8_kernels.mend()
        int8.install()
        model = original(self, vllm_config, model_config, *args, **kwargs)
        _give_back_freed_memory()
        if model_config.quantization == INT8:
            int8_report.report(model, vllm_config.quant_config)
        return model

    return load_model


def _give_back_freed_memory() -> None:
    """glibc keeps the memory that 16-bit layers were read into, on the CPU a good part of the model's."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
