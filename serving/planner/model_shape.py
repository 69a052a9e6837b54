"""The sizes of a decoder, read from its config.json: what the arithmetic of sharding and of memory needs of a model.

Names are those of Transformers' configs. Knows nothing of the weights themselves; a model whose config lacks a size has no shape here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """Sizes of one decoder; heads and the MLP are those of one layer. `num_experts` is 0 for a dense model, `max_context` in tokens."""

    model_type: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    num_experts: int
    max_context: int
    has_tied_embeddings: bool

    @property
    def heads_per_kv(self) -> int:
        """Query heads that share a KV head."""
        return self.num_heads // self.num_kv_heads


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a multimodal model's config the part that describes its decoder, by any of the names that vLLM reads, else the config itself."""
    nested = (config.get(name) for name in ("text_config", "llm_config", "language_config"))
    return next((part for part in nested if isinstance(part, Mapping)), config)


def read_shape(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape that a config.json tells; None if it lacks a size, or has one that is no positive number."""
    text = text_config(config)
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings")
    sizes: list[Any] = [text.get(name) for name in names]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    num_layers, hidden_size, num_heads, intermediate_size, vocab_size, max_context = sizes
    num_kv_heads = text.get("num_key_value_heads") or num_heads
    head_dim = text.get("head_dim") or hidden_size // num_heads
    if not (isinstance(num_kv_heads, int) and isinstance(head_dim, int)) or num_heads % num_kv_heads:
        return None
    return ModelShape(
        model_type=str(text.get("model_type", "")),
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate_size,
        vocab_size=vocab_size,
        num_experts=num_experts(config),
        max_context=max_context,
        has_tied_embeddings=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
    )


def num_experts(config: Mapping[str, Any]) -> int:
    """Experts of a mixture-of-experts model by any of the names in use; 0 for a dense one."""
    text = text_config(config)
    for name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        if isinstance(text.get(name), int):
            return int(text[name])
    return 0


def experts_per_token(config: Mapping[str, Any]) -> int | None:
    """To how many experts a mixture sends a token, by any of the names in use; None if it is not told."""
    text = text_config(config)
    names = ("num_experts_per_tok", "experts_per_token", "moe_topk", "moe_k")
    return next((text[name] for name in names if isinstance(text.get(name), int)), None)
