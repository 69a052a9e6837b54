"""Tells in the log what became of a model that was loaded with `quantization=int8`: how many layers, how many bytes, and what was left.

Reads the loaded model once; knows nothing of how a layer is quantised. Of a tensor-parallel group rank 0 speaks.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from vllm.distributed import get_pp_group, get_tensor_model_parallel_rank
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.fused_moe.router.gate_linear import GateLinear
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.quantization.online.base import OnlineQuantizationConfig
from vllm.model_executor.layers.quantization.utils.config_utils import find_matching_patterns

from serving.engine.int8 import ExpertsLeftAsTheyAre, Int8Experts, Int8LinearMethod, LeftAsItIs

logger = logging.getLogger("tokenport.engine")

_16_BIT_BYTES = 2
_NUM_SHOWN = 3


@dataclass
class Outcome:
    """What this rank holds. `left`: names of layers that could not be quantised, by reason; `ignored`: of those that should not be."""

    num_layers: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    left: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    ignored: list[str] = field(default_factory=list)


def outcome(model: torch.nn.Module) -> Outcome:
    """Of a loaded model. What is never quantised, a mixture's router or a layer for which vLLM offers it not at all, is not counted."""
    found = Outcome()
    for name, layer in model.named_modules():
        if not isinstance(layer, LinearBase | RoutedExperts) or isinstance(layer, GateLinear) or layer.quant_config is None:
            continue
        method = layer.quant_method
        if isinstance(method, Int8LinearMethod):
            num_weights = layer.input_size_per_partition * layer.output_size_per_partition
            num_bytes = method.weight_bytes
        elif isinstance(method, Int8Experts):
            num_weights = layer.w13_weight.numel() + layer.w2_weight.numel()
            num_bytes = num_weights + layer.w13_scale.nbytes + layer.w2_scale.nbytes
        else:
            names = found.left[method.reason] if isinstance(method, LeftAsItIs | ExpertsLeftAsTheyAre) else found.ignored
            names.append(name)
            continue
        found.num_layers += 1
        found.bytes_before += num_weights * _16_BIT_BYTES
        found.bytes_after += num_bytes
    return found


def unknown_patterns(patterns: Iterable[str], names: Iterable[str], fused: Mapping[str, list[str]]) -> list[str]:
    """Those that match none of the modules' names, nor a part of a fused one's."""
    known = list(names)

    def matches(pattern: str) -> bool:
        return any(any(find_matching_patterns(name, [pattern], fused, use_fnmatch=True)) for name in known)

    return [pattern for pattern in patterns if not matches(pattern)]


def report(model: torch.nn.Module, config: OnlineQuantizationConfig) -> None:
    """One line for what was done; one more for each kind of thing that the user should know."""
    if get_tensor_model_parallel_rank() != 0:
        return
    found = outcome(model)
    megabytes = f"{found.bytes_before / 1e6:.0f} MB of weights are now {found.bytes_after / 1e6:.0f} MB"
    facts = {"bytes_before": found.bytes_before, "bytes_after": found.bytes_after, "ignored": len(found.ignored)}
    logger.info("%d layers are in INT8: %s", found.num_layers, megabytes, extra=facts)
    if found.left:
        told = "; ".join(f"{_listed(names)} ({reason})" for reason, names in found.left.items())
        logger.warning("%d layers could not be quantised and stay in 16 bits: %s", sum(map(len, found.left.values())), told)
    # A stage of a pipeline knows its own layers only.
    if get_pp_group().world_size == 1:
        names = [name for name, _ in model.named_modules()]
        for pattern in unknown_patterns(config.ignored_layers, names, config.packed_modules_mapping):
            logger.warning("quantization_config: ignore: %r is the name of no layer", pattern)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NUM_SHOWN])
    return shown if len(names) <= _NUM_SHOWN else f"{shown} and {len(names) - _NUM_SHOWN} more"
