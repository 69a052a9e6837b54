"""The type of numbers that the engine computes in, by vLLM's rules for `dtype` (`_get_and_verify_dtype` in vllm/config/model.py)."""

from serving.errors import PlanError
from serving.planner.hardware import Gpu
from serving.planner.model import FLOAT_BYTES, Model, config_dtype
from serving.planner.plan import PlanRequest

_NOT_IN_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "glm4")
"""Model types whose numbers leave its range (`_FLOAT16_NOT_SUPPORTED_MODELS` there)."""
_SHORT = {"half": "float16", "float": "float32"}


def computed_dtype(model: Model, request: PlanRequest, gpu: Gpu) -> str:
    """What `request.dtype` comes to on that GPU: a checkpoint's own type with `auto`, but for what the model or the GPU has not.

    Raises:
        PlanError: vLLM would refuse the type that is asked for, or INT8 kernels the one that is left.
    """
    asked = _SHORT.get(request.dtype, request.dtype)
    possible = _possible(model, gpu)
    if asked != "auto" and asked not in possible:
        who = gpu.name if asked == "bfloat16" else "the model"
        raise PlanError(f"dtype={request.dtype}: vLLM refuses it for {who}; it can be auto, {', '.join(possible)}")
    own = config_dtype(model.config)
    found = asked if asked != "auto" else own if own in possible and own != "float32" else possible[0]
    if request.quantization == "int8" and FLOAT_BYTES[found] == FLOAT_BYTES["float32"]:
        raise PlanError(f"quantization=int8: the model is computed in {found} on {gpu.name}, and INT8 kernels answer in 16 bits")
    return found


def _possible(model: Model, gpu: Gpu) -> list[str]:
    """The one that is preferred first."""
    has = {"bfloat16": gpu.has_bfloat16, "float16": model.config.get("model_type") not in _NOT_IN_FLOAT16, "float32": True}
    return [name for name, is_possible in has.items() if is_possible]
