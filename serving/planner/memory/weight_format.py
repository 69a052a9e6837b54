"""How many bytes a linear layer takes in each quantisation: bits of a weight, what shares a scale, and which layers it leaves alone.

Formats that the engine makes while it loads are named by `quantization`; those of a checkpoint by `quantization_config` in its config.json,
which is needed only where there are no safetensors headers: these tell the bytes themselves.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from serving.errors import PlanError
from serving.planner.hardware import Device
from serving.planner.model_shape import text_config


@dataclass(frozen=True)
class WeightFormat:
    """`scale_bits` for each row, each `group_size` numbers of a row, or each `block_rows` rows of such groups; 0 where one scale serves a
    whole layer, which is nothing. `experts_only`: linear layers outside a mixture's experts stay floats. `ignored`: modules that stay
    floats, whole names, endings of names, or regular expressions after `re:`. `spread`: by how much the sizes may be wrong, either way."""

    name: str
    weight_bits: float
    scale_bits: float = 0
    group_size: int | None = None
    block_rows: int = 1
    experts_only: bool = False
    ignored: tuple[str, ...] = ()
    spread: float = 0.0

    def weight_bytes(self, numbers: float, rows: float) -> float:
        """Of `numbers` weights in `rows` rows, their scales included."""
        scales = rows if self.group_size is None else numbers / self.group_size / self.block_rows
        return (numbers * self.weight_bits + scales * self.scale_bits) / 8

    def quantizes(self, module: str, *, is_expert: bool) -> bool:
        """Whether it changes the linear layer `module`, named in full."""
        return (is_expert or not self.experts_only) and not any(_matches(pattern, module) for pattern in self.ignored)


ONLINE = {
    "int8": WeightFormat("int8", 8, 32),
    "fp8": WeightFormat("fp8", 8),
    "fp8_per_tensor": WeightFormat("fp8_per_tensor", 8),
    "fp8_per_channel": WeightFormat("fp8_per_channel", 8, 32),
    "fp8_per_block": WeightFormat("fp8_per_block", 8, 32, group_size=128, block_rows=128),
    "mxfp8": WeightFormat("mxfp8", 8, 8, group_size=32),
    "mxfp4": WeightFormat("mxfp4", 4, 8, group_size=32),
    "int8_per_channel_weight_only": WeightFormat("int8_per_channel_weight_only", 8, 32, experts_only=True),
    "bitsandbytes": WeightFormat("bitsandbytes", 4, 8.125, group_size=64, spread=0.02),
}
"""What `quantization` can be for a checkpoint in floats: `int8` is Tokenport's, the rest vLLM's (`_ONLINE_SHORTHANDS` in
vllm/config/quantization.py, and its bitsandbytes loader: NF4 with a scale of 8 bits for 64 weights, nested once more for 256 of these)."""
_CHECKPOINTS = ("awq", "awq_marlin", "gptq", "gptq_marlin", "compressed-tensors", "modelopt", "quark")


def online_format(quantization: str, device: Device = "cuda") -> WeightFormat:
    """The format that `quantization` makes of a checkpoint in floats.

    Raises:
        PlanError: there is none of that name, or it is one of checkpoints.
    """
    if quantization in ONLINE:
        known = ONLINE[quantization]
        # oneDNN's kernel keeps the sum of each row beside its scale (`azp_adj` in vllm/model_executor/kernels/linear/scaled_mm/cpu.py).
        return replace(known, scale_bits=64) if (quantization, device) == ("int8", "cpu") else known
    if quantization in _CHECKPOINTS:
        raise PlanError(f"quantization={quantization}: the checkpoint is in floats; give one that is quantised so, or quantization=int8")
    near = difflib.get_close_matches(quantization.lower(), ONLINE, n=1, cutoff=0)[0]
    raise PlanError(f"quantization={quantization!r} is not known (nearest: {near}); it can be one of none, {', '.join(ONLINE)}")


def checkpoint_config(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What config.json says of a checkpoint that is quantised; None for floats.

    Raises:
        PlanError: it is said in a form that nobody reads.
    """
    for holder in (config, text_config(config)):
        for key in ("quantization_config", "compression_config"):
            if not holder.get(key):
                continue
            if not isinstance(holder[key], Mapping):
                raise PlanError(f"config.json: {key}={holder[key]!r} is no mapping")
            return dict(holder[key])
    return None


def checkpoint_format(told: Mapping[str, Any]) -> WeightFormat:
    """The format that `checkpoint_config` describes.

    Raises:
        PlanError: the method is not known here, or a field is missing or wrong.
    """
    method = str(told.get("quant_method", "compressed-tensors" if "config_groups" in told else "unknown"))
    ignored = _ignored(told)
    if method == "compressed-tensors":
        return _compressed_tensors(told, ignored)
    if method in ("awq", "gptq"):
        bits, group = _number(told, method, "bits", "w_bit"), _number(told, method, "group_size", "q_group_size")
        # A scale of 16 bits and a zero point for each group; AWQ and GPTQ files carry both always.
        return WeightFormat(method, bits, 16 + bits, group_size=None if group < 0 else group, ignored=ignored)
    if method == "fp8":
        return _fp8(told, ignored)
    if method == "mxfp4":
        # The kernels want both sides of an expert's matrix to be multiples of up to 256, by which gpt-oss-20b, measured, is 5 % larger:
        # https://github.com/llm-d-incubation/llm-d-planner/blob/main/docs/empirical-vllm-memory-results.md
        return WeightFormat(method, 4, 8, group_size=32, experts_only=True, ignored=ignored, spread=0.1)
    if method == "bitsandbytes":
        is_small = bool(told.get("load_in_4bit"))
        return WeightFormat(method, 4 if is_small else 8, 8.125 if is_small else 32, 64 if is_small else None, ignored=ignored, spread=0.02)
    raise PlanError(
        f"config.json: quantization_config: quant_method={method} is not known here; "
        "give a folder or a hub id that has its safetensors files, whose headers tell the sizes"
    )


def weights_of_groups(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of compressed-tensors: for each of its groups of layers what their weights are.

    Raises:
        PlanError: a group is none.
    """
    groups = told.get("config_groups") or {}
    found = [group.get("weights") or {} for group in groups.values() if isinstance(group, Mapping)] if isinstance(groups, Mapping) else None
    if found is None or len(found) < len(groups) or not all(isinstance(weights, Mapping) for weights in found):
        raise PlanError("config.json: quantization_config: config_groups is no mapping of groups, each with its weights")
    return found


def _ignored(told: Mapping[str, Any]) -> tuple[str, ...]:
    for name in ("ignore", "modules_to_not_convert", "llm_int8_skip_modules"):
        modules = told.get(name)
        if modules and not (isinstance(modules, list) and all(isinstance(module, str) for module in modules)):
            raise PlanError(f"config.json: quantization_config: {name}={modules!r} is no list of names")
        if modules:
            return tuple(modules)
    return ()


def _fp8(told: Mapping[str, Any], ignored: tuple[str, ...]) -> WeightFormat:
    block = told.get("weight_block_size")
    if not block:
        return WeightFormat("fp8", 8, ignored=ignored)
    if not (isinstance(block, list) and len(block) == 2 and all(isinstance(side, int) and side > 0 for side in block)):
        raise PlanError(f"config.json: quantization_config: weight_block_size={block!r} is no list of two whole numbers above 0")
    return WeightFormat("fp8", 8, 32, group_size=block[1], block_rows=block[0], ignored=ignored)


def _compressed_tensors(told: Mapping[str, Any], ignored: tuple[str, ...]) -> WeightFormat:
    groups = weights_of_groups(told)
    if not groups:
        raise PlanError("config.json: quantization_config: config_groups is missing")
    weights = groups[0]
    bits, strategy = _number(weights, "compressed-tensors", "num_bits"), weights.get("strategy")
    if strategy == "group":
        return WeightFormat(
            "compressed-tensors", bits, 16, group_size=_number(weights, "compressed-tensors", "group_size"), ignored=ignored
        )
    return WeightFormat("compressed-tensors", bits, 0 if strategy == "tensor" else 32, ignored=ignored)


def _number(told: Mapping[str, Any], method: str, *names: str) -> int:
    """A group size of -1 is AWQ's and GPTQ's word for a whole row."""
    value = next((told[name] for name in names if told.get(name) is not None), None)
    if value is None:
        raise PlanError(f"config.json: quantization_config of {method}: {names[0]} is missing")
    is_whole_row = names[0] == "group_size" and value == -1
    if not isinstance(value, int) or isinstance(value, bool) or (value < 1 and not is_whole_row):
        raise PlanError(f"config.json: quantization_config of {method}: {names[0]}={value!r} is no whole number above 0")
    return value


def _matches(pattern: str, module: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern.removeprefix("re:"), module) is not None
    return module == pattern or module.endswith(f".{pattern}") or f".{pattern}." in f".{module}."
