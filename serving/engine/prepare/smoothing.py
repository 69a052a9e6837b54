"""SmoothQuant (https://arxiv.org/abs/2211.10438): what a norm divides, the layer after it multiplies, so that large channels shrink.

Steps: the largest activation of each channel on a text of its own (transformers, 16 bit), the largest weight, a factor a channel, kept in
OUT so that a resumed run has the same. A norm's weight is rounded to its own type, and the layer multiplied by what that really divided by:
in exact arithmetic the model stays what it was.
"""

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from serving.engine.prepare.checkpoint import TensorInfo, read_tensor
from serving.engine.prepare.layers import Layers
from serving.engine.prepare.source import Source
from serving.engine.prepare.transform import Int8, LayerError
from serving.errors import ModelUnavailable, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

KNOWN = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3"})
"""Model types in which a plain RMS norm feeds these layers and nothing else."""
_FED = {"input_layernorm": ("q_proj", "k_proj", "v_proj", "qkv_proj"), "post_attention_layernorm": ("gate_proj", "up_proj", "gate_up_proj")}
FACTORS = ".tokenport-factors.safetensors"
_SMALLEST = 1e-5
_TEXT_TOKENS = 512


def check_known(source: Source) -> None:
    """Raise `SettingsError` for an architecture whose norms and layers are not known to belong together."""
    if (found := source.config.get("model_type")) not in KNOWN:
        raise SettingsError(f"--smooth knows {', '.join(sorted(KNOWN))}, not {found}: keep layers that lose much with --ignore instead")


class SmoothedInt8(Int8):
    """INT8 of weights multiplied by a factor a channel, and the norms before them divided by it. `factors`: by norm, FP32 [channels]."""

    def __init__(self, layers: Layers, source: Source, factors: Mapping[str, "Tensor"]) -> None:
        super().__init__(layers)
        self._norms = {f"{norm}.weight": factor for norm, factor in factors.items()}
        self._layers_of: dict[str, TensorInfo] = {
            f"{layer}.weight": source.tensors[f"{norm}.weight"] for norm in factors for layer in fed_by(norm, layers)
        }

    def is_copied(self, info: TensorInfo) -> bool:
        """The norms change too."""
        return info.name not in self._norms and super().is_copied(info)

    def convert(self, info: TensorInfo, tensor: "Tensor") -> dict[str, "Tensor"]:
        """A norm divided, a weight multiplied and rounded."""
        if info.name in self._norms:
            return {info.name: _divided(tensor, self._norms[info.name])}
        return super().convert(info, self._multiplied(info, tensor))

    def check(self, info: TensorInfo, tensor: "Tensor", written: dict[str, "Tensor"]) -> LayerError | None:
        """Against the multiplied weight: what rounding did to it."""
        if info.name in self._norms:
            if not bool((written[info.name] == self.convert(info, tensor)[info.name]).all()):
                raise ModelUnavailable(f"{info.name}: what was read back is not what was written; look after this disk")
            return None
        return super().check(info, self._multiplied(info, tensor), written)

    def _multiplied(self, info: TensorInfo, tensor: "Tensor") -> "Tensor":
        if info.name not in self._layers_of:
            return tensor
        norm = self._layers_of[info.name]
        before = read_tensor(norm)
        after = _divided(before, self._norms[norm.name])
        return tensor.float() * (before.float() / after.float()).nan_to_num(1.0, 1.0, 1.0)


def _divided(norm: "Tensor", factor: "Tensor") -> "Tensor":
    return (norm.float() / factor).to(norm.dtype)


def fed_by(norm: str, layers: Layers) -> list[str]:
    """The quantised layers that read what this norm writes; none if one of them stays in 16 bit."""
    prefix, _, name = norm.rpartition(".")
    room = "self_attn" if name == "input_layernorm" else "mlp"
    return [layer for fed in _FED[name] if (layer := f"{prefix}.{room}.{fed}") in layers.quantized]


def find_factors(source: Source, layers: Layers, alpha: float, folder: Path) -> dict[str, "Tensor"]:
    """The factors of each norm, from `folder` if an earlier run left them there, else measured and put there.

    Raises:
        ModelUnavailable: memory is too small for the 16-bit model, or it does not run.
    """
    from safetensors.torch import load_file, save_file

    file = folder / FACTORS
    if not file.exists():
        part = file.with_name(file.name + ".part")
        save_file(_factors(source, layers, alpha), part)
        os.replace(part, file)
    return dict(load_file(file))


def _factors(source: Source, layers: Layers, alpha: float) -> dict[str, "Tensor"]:
    import torch

    activations = _activation_maxima(source, layers)
    factors = {}
    for norm, largest_input in activations.items():
        largest_weight = torch.zeros_like(largest_input)
        for layer in fed_by(norm, layers):
            weight = read_tensor(source.tensors[f"{layer}.weight"])
            largest_weight = torch.maximum(largest_weight, weight.abs().amax(dim=0).float())
        factor = largest_input.clamp(min=_SMALLEST) ** alpha / largest_weight.clamp(min=_SMALLEST) ** (1 - alpha)
        # A factor common to all channels changes nothing, so their geometric mean is 1: norms then stay in the range of 16 bit.
        factors[norm] = factor / factor.log().mean().exp()
    return factors


def _activation_maxima(source: Source, layers: Layers) -> dict[str, "Tensor"]:
    """By norm, FP32 [channels]: the largest magnitude that left it while the model read the text for this."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    text = files("serving.engine.prepare").joinpath("smoothing_text.txt").read_text(encoding="utf-8")
    try:
        tokens = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)(text, return_tensors="pt").input_ids
        model = AutoModelForCausalLM.from_pretrained(source.folder, dtype=torch.bfloat16, local_files_only=True, use_safetensors=True)
    except (ValueError, OSError, RuntimeError) as error:
        raise ModelUnavailable(f"{source.folder} does not run through transformers: {' '.join(str(error).split())[:300]}") from error
    maxima: dict[str, Tensor] = {}

    def watch(name: str, _module: object, _inputs: object, output: "Tensor") -> None:
        largest = output.detach().abs().flatten(0, -2).amax(dim=0).float()
        maxima[name] = torch.maximum(maxima[name], largest) if name in maxima else largest

    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _FED and fed_by(name, layers):
            module.register_forward_hook(lambda *arguments, name=name: watch(name, *arguments))
    with torch.inference_mode():
        for piece in tokens.split(_TEXT_TOKENS, dim=1):
            model(piece)
    return {name: largest.clone() for name, largest in maxima.items()}
