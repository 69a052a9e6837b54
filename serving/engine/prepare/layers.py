"""Which weights become INT8, and why the others do not.

Rules: the weights of linear layers, as transformers builds the architecture on the meta device, and those of experts that stand one by one.
The output embedding, routers, gates of shared experts and what `--ignore` names stay. Layers that vLLM computes as one: all or none.
"""

import difflib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.engine.prepare.checkpoint import TensorInfo
from serving.engine.prepare.source import Source
from serving.errors import ModelUnavailable, SettingsError

if TYPE_CHECKING:
    from torch import nn

TRIED = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3", "mixtral", "qwen2_moe", "qwen3_moe"})
"""Model types whose layers vLLM 0.32 loads in INT8 just as they are chosen here; of others it may keep one in 16 bit that is INT8 here."""
_EXPERT = re.compile(r"(.+\.experts)\.\d+\.(w[123]|(gate|up|down)_proj)")
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""What vLLM holds as one layer (`packed_modules_mapping` of its models), which has one way of being quantised."""
_FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Layers:
    """Names of modules: `quantized` become INT8; `kept` are layers that stay, each with the reason."""

    quantized: frozenset[str]
    kept: Mapping[str, str]
    architecture: str

    @property
    def ignore(self) -> list[str]:
        """compressed-tensors' list of layers that its target "Linear" does not mean."""
        embeddings = {name for name, reason in self.kept.items() if reason == _EMBEDDING}
        return sorted({*self.kept, "lm_head"} - embeddings)


_EMBEDDING = "the embedding is a table, not a layer"


def choose_layers(source: Source, ignore: Sequence[str]) -> Layers:
    """Sort the matrices into those to quantise and those to keep. `ignore` are module names, or `re:` and a regular expression.

    Raises:
        SettingsError: a pattern is malformed, matches no layer, or takes a part of what vLLM computes as one.
        ModelUnavailable: transformers does not know the architecture, the weights are not its own, or nothing is left to quantise.
    """
    skeleton = _skeleton(source)
    quantized: set[str] = set()
    kept: dict[str, str] = {}
    for info in source.tensors.values():
        if len(info.shape) < 2:
            continue
        module = info.name.removesuffix(".weight")
        if reason := _reason_to_keep(info, module, skeleton):
            kept[module] = reason
        else:
            quantized.add(module)
    for module, pattern in _ignored(quantized, [*kept, "lm_head"], ignore).items():
        quantized.discard(module)
        kept[module] = f"--ignore {pattern}"
    _check_fused(quantized, kept)
    if not quantized:
        raise ModelUnavailable(f"{source.folder} has no layer to quantise: {_examples(kept)}")
    return Layers(frozenset(quantized), dict(sorted(kept.items())), str(source.config.get("model_type")))


def _skeleton(source: Source) -> "nn.Module":
    """The model without weights, as transformers builds it from config.json alone; code from the checkpoint is never run."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, OSError, KeyError, ImportError, AttributeError, TypeError) as error:
        told = " ".join(str(error).split())[:300]
        raise ModelUnavailable(f"{source.folder}: transformers cannot build this architecture from config.json: {told}") from error


def _reason_to_keep(info: TensorInfo, module: str, skeleton: "nn.Module") -> str | None:
    """Why a matrix stays as it is; None if it becomes INT8."""
    from torch import nn

    if not info.name.endswith(".weight"):
        if ".experts." in info.name and len(info.shape) > 2:
            raise ModelUnavailable(
                f"{info.name} holds all experts in one tensor, for which compressed-tensors has no place: save the experts one by one"
            )
        return "not the weight of a layer"
    if info.dtype not in _FLOATS:
        return f"stored as {info.dtype}, not as a 16- or 32-bit float"
    if _EXPERT.fullmatch(module):
        return None if len(info.shape) == 2 else f"{len(info.shape)} dimensions"
    try:
        layer = skeleton.get_submodule(module)
    except AttributeError:
        return "no linear layer of this architecture"
    if layer is skeleton.get_output_embeddings():
        return "the output embedding stays in 16 bit"
    if isinstance(layer, nn.Embedding):
        return _EMBEDDING
    if not isinstance(layer, nn.Linear):
        return f"a {type(layer).__name__}, not a linear layer"
    if tuple(layer.weight.shape) != info.shape:
        raise ModelUnavailable(f"{info.name} is {list(info.shape)}, by config.json {list(layer.weight.shape)}: copy the model anew")
    if module.endswith("shared_expert_gate"):
        return "vLLM computes the shared expert's gate in 16 bit"
    return None


def _ignored(quantized: set[str], others: Sequence[str], patterns: Sequence[str]) -> dict[str, str]:
    """The layers that the patterns take out, each with the first pattern that does."""
    taken: dict[str, str] = {}
    for pattern in patterns:
        expression = _compiled(pattern)
        matched = [module for module in quantized if (expression.match(module) if expression else module == pattern)]
        if not matched and not any(expression.match(module) if expression else module == pattern for module in others):
            near = difflib.get_close_matches(pattern, quantized, 1)
            hint = f"the nearest is {near[0]}" if near else f"a layer is called {min(quantized, default='nothing here')}"
            raise SettingsError(f"--ignore {pattern} matches no layer of this model; {hint}")
        for module in matched:
            taken.setdefault(module, pattern)
    return taken


def _compiled(pattern: str) -> re.Pattern[str] | None:
    if not pattern.startswith("re:"):
        return None
    try:
        return re.compile(pattern[3:])
    except re.error as error:
        raise SettingsError(f"--ignore {pattern}: not a regular expression: {error}") from error


def _check_fused(quantized: set[str], kept: Mapping[str, str]) -> None:
    groups: dict[str, set[str]] = defaultdict(set)
    for module in (*quantized, *kept):
        if expert := _EXPERT.fullmatch(module):
            groups[expert[1]].add(module)
            continue
        parent, _, name = module.rpartition(".")
        for fused in _FUSED:
            if name in fused:
                groups[f"{parent}.{fused[0]}"].add(module)
    for members in groups.values():
        inside, outside = sorted(members & quantized), sorted(members - quantized)
        if inside and outside:
            told = f"{outside[0]} stays in 16 bit ({kept[outside[0]]}), but {inside[0]} does not"
            raise SettingsError(f"{told}, and vLLM computes them as one layer: --ignore all {len(members)} of them, or none")


def _examples(kept: Mapping[str, str]) -> str:
    return "; ".join(f"{module}: {reason}" for module, reason in list(kept.items())[:3]) or "it holds no matrix"
