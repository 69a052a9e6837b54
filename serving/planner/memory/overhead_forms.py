"""How what the engine takes beside weights and KV cache depends on the model, its layout and the size of a step, as far as its code tells.

The forms have no constants of their own but for numbers of copies; `overhead_points.py` fits those to measurements.
"""

from dataclasses import dataclass

from serving.planner.checkpoint.placement import Place
from serving.planner.hardware import Device
from serving.planner.memory.layout import Layout
from serving.planner.model import Model
from serving.planner.model_shape import experts_per_token

_LOGIT_COPIES = 4
"""Copies of all logits in 32 bits that sampling makes: the logits, the values sorted, and the order, whose numbers have 64."""


@dataclass(frozen=True)
class Steps:
    """What one step of the engine may be: tokens, sequences, bytes of a number."""

    num_batched_tokens: int
    num_seqs: int
    float_bytes: int


def activation_form(model: Model, layout: Layout, steps: Steps) -> float:
    """The peak in bytes: of a layer in the middle (four hidden states, and queries, keys, values and attention's output, or the MLP's
    three), or of sampling (hidden states and copies of the logits), whichever is more; and an experts layer's two workspaces, which are
    kept (`TritonExperts.workspace_shapes` in vllm/model_executor/layers/fused_moe)."""
    sharding, shape = layout.sharding, model.shape
    heads = 2 * sharding.num_heads + 2 * sharding.num_kv_held
    mlp = 0 if shape.num_experts else 3 * sharding.intermediate_size
    layer = 4 * shape.hidden_size + max(heads * shape.head_dim, mlp) / sharding.num_ranks
    middle = steps.num_batched_tokens * layer * steps.float_bytes
    logits = _LOGIT_COPIES * 4 * steps.num_seqs * shape.vocab_size
    sampling = steps.num_batched_tokens * shape.hidden_size * steps.float_bytes + logits
    return max(middle, sampling) + _workspace_bytes(model, layout, steps)


def _workspace_bytes(model: Model, layout: Layout, steps: Steps) -> float:
    decoder, shape = model.decoder, model.shape
    if not shape.num_experts:
        return 0.0
    width = (decoder.get("moe_intermediate_size") or shape.intermediate_size) / layout.sharding.num_ranks / layout.num_replicas
    rows = steps.num_batched_tokens * (experts_per_token(decoder) or 1)
    return rows * (max(width, shape.hidden_size) + max(2 * width, shape.hidden_size)) * steps.float_bytes


def graph_features(model: Model, layout: Layout) -> list[float]:
    """What CUDA graphs are a weighted sum of: they grow with the layers that they hold, and more with those of experts."""
    layers = max(map(len, layout.stage_layers))
    return [1.0, float(layers), float(layers) if model.shape.num_experts else 0.0]


def copied_bytes(model: Model, layout: Layout, steps: Steps, device: Device) -> float:
    """Outside torch on a CPU: the vocabulary's matrices as its kernels have packed them, once for the input and once for the output, where
    they are tied too (`dispatch_cpu_unquantized_gemm` in vllm/model_executor/layers/utils.py)."""
    if device != "cpu":
        return 0.0
    shape = model.shape
    return 2 * shape.vocab_size * shape.hidden_size * steps.float_bytes * float(layout.share(Place.VOCABULARY))
