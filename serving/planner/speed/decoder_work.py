"""The work of a token of one model, from its config.json: which weights it goes through, and at which rate they are computed.

Counted from the tensors that the family has by its config; from the checkpoint's own where the family is not known. Attention is taken to
look at the whole context, which is too much where layers look through a window.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.errors import PlanError
from serving.planner.checkpoint.computed_tensors import computed_tensors
from serving.planner.checkpoint.families import FAMILIES
from serving.planner.checkpoint.tensors import Tensor
from serving.planner.memory.weight_format import checkpoint_config
from serving.planner.model_shape import experts_per_token, num_experts
from serving.planner.speed.work_per_token import WorkPerToken

_FLOAT8 = ("fp8", "fbgemm_fp8")
"""vLLM's methods with weights and activations in FP8; of modelopt's and of compressed tensors' the config says more."""


def work_of(decoder: Mapping[str, Any], tensors: Sequence[Tensor]) -> WorkPerToken:
    """`decoder` as `decoder_config` returns it; `tensors` of the checkpoint, in which a quantised one may pack several weights into one
    element.

    Raises:
        PlanError: the config of a mixture of experts does not say how many a token is sent to.
    """
    counted = computed_tensors(decoder, "BF16") if decoder["model_type"] in FAMILIES else tensors
    matrices = [one for one in counted if len(one.shape) > 1 and "embed" not in one.name and "lm_head" not in one.name]
    of_experts = sum(one.num_elements for one in matrices if ".experts." in one.name)
    experts, chosen = (num_experts(decoder), _num_chosen(decoder)) if of_experts else (0, 0)
    others = sum(one.num_elements for one in matrices) - of_experts
    return WorkPerToken(
        num_linear=others + (of_experts * chosen // experts if experts else 0),
        num_vocabulary=decoder["vocab_size"] * decoder["hidden_size"],
        attention_flops=_attention_flops(decoder),
        num_experts=experts,
        num_chosen=chosen,
        prompt_attention_flops=_prompt_attention_flops(decoder),
    )


def computed_in(quantization: str | None, config: Mapping[str, Any]) -> str:
    """The rate of linear layers by a GPU's names of them: where weights and activations have 8 bits that of 8 bits, else of 16 bits.
    `quantization`: what is asked of the engine; None for what `config`, the whole config.json, says of the checkpoint."""
    if quantization is not None:
        return "int8" if quantization == "int8" else "float8" if quantization.startswith("fp8") else "float16"
    found = checkpoint_config(config) or {}
    if found.get("quant_method") in _FLOAT8 or str(found.get("quant_algo")).upper() == "FP8":
        return "float8"
    groups = (found.get("config_groups") or {}).values()
    activations = [group["input_activations"] for group in groups if group.get("input_activations")]
    if not activations or activations[0].get("num_bits") != 8:
        return "float16"
    return "int8" if activations[0].get("type") == "int" else "float8"


def _num_chosen(decoder: Mapping[str, Any]) -> int:
    told = experts_per_token(decoder)
    if told is None:
        raise PlanError("config.json: num_experts_per_tok is missing, so the work of a token is not known")
    return told


def _attention_flops(decoder: Mapping[str, Any]) -> int:
    """Of one token and one of its context in all layers: a product for the score and one for the value, over every head. Latent attention
    decodes on the cached vector itself (`forward_mqa` in vllm/model_executor/layers/attention/mla_attention.py)."""
    heads = 2 * decoder["num_hidden_layers"] * decoder["num_attention_heads"]
    if rank := decoder.get("kv_lora_rank"):
        return int(heads * (2 * rank + decoder["qk_rope_head_dim"]))
    return int(heads * 2 * (decoder.get("head_dim") or decoder["hidden_size"] // decoder["num_attention_heads"]))


def _prompt_attention_flops(decoder: Mapping[str, Any]) -> int | None:
    """Of a prompt: latent attention makes keys and values of every head out of the vector first (`forward_mha` there)."""
    if not decoder.get("kv_lora_rank"):
        return None
    head_dims = decoder["qk_nope_head_dim"] + decoder["qk_rope_head_dim"] + decoder["v_head_dim"]
    return int(2 * decoder["num_hidden_layers"] * decoder["num_attention_heads"] * head_dims)
