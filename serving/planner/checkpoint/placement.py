"""Where the ranks of a model hold a tensor: told by its name, as vLLM's layers divide it.

Rules: the last part of a module's name decides (`q_proj`, `down_proj`, ...), experts and routers before it; a bias or a norm is on every
rank unless its layer is divided by rows; what no rule knows is on every rank, which is the most that it can take.
"""

import re
from enum import Enum


class Place(Enum):
    """What of a tensor one rank holds. ROWS_* are divided by output, as the queries, the KV heads or the MLP's columns are; COLUMNS_* by
    input, as what feeds them."""

    WHOLE = "whole"
    ROWS_QUERY = "rows of query heads"
    ROWS_KV = "rows of KV heads"
    ROWS_QKV = "rows of query and KV heads"
    ROWS_MLP = "rows of the MLP"
    COLUMNS_QUERY = "columns of query heads"
    COLUMNS_MLP = "columns of the MLP"
    EXPERTS = "experts"
    VOCABULARY = "vocabulary"
    TOWER = "another input's"
    UNKNOWN = "unknown"

    @property
    def is_by_columns(self) -> bool:
        """Whether what there is for each output channel is on every rank."""
        return self in (Place.COLUMNS_QUERY, Place.COLUMNS_MLP)


_MODULES = {
    Place.ROWS_QUERY: ("q_proj", "q_b_proj", "kv_b_proj", "query", "sinks"),
    Place.ROWS_KV: ("k_proj", "v_proj", "key", "value"),
    Place.ROWS_QKV: ("qkv_proj", "query_key_value", "c_attn", "W_pack", "Wqkv", "qkv"),
    Place.ROWS_MLP: ("gate_proj", "up_proj", "gate_up_proj", "fc1", "c_fc", "fc_in", "dense_h_to_4h", "w1", "w3"),
    Place.COLUMNS_QUERY: ("o_proj", "out_proj", "dense"),
    Place.COLUMNS_MLP: ("down_proj", "fc2", "fc_out", "dense_4h_to_h", "w2"),
    Place.VOCABULARY: ("embed_tokens", "wte", "embed_in", "word_embeddings", "lm_head", "embed_out"),
    Place.WHOLE: ("q_a_proj", "kv_a_proj_with_mqa", "embed_positions", "wpe", "project_in", "project_out"),
}
_PLACES = {module: place for place, modules in _MODULES.items() for module in modules}
_EXPERTS = re.compile(r"\.experts\.")
_ROUTER = re.compile(r"\.(gate|router|shared_expert_gate)(\.|$)")
_TOWER = re.compile(r"(^|\.)(vision_\w+|visual|audio_\w+|multi_modal_projector|mm_projector|image_\w+|embed_vision|embed_audio)(\.|$)")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_NOT_LOADED = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$|\.attn\.bias$|\.attention\.bias$|\.weight_shape$")
"""Tables and masks in old checkpoints that the engine makes itself, and the sizes that packed weights carry along."""
_UNQUANTIZED = ("embed_positions", "wpe", "project_in", "project_out", "sinks")
"""Matrices that are no linear layers of vLLM's."""


def place_of(name: str, num_dimensions: int) -> Place:
    """Of the tensor `name`. A vector whose module divides its input is whole: it is a bias, or a scale of each output channel."""
    if _TOWER.search(name):
        return Place.TOWER
    if _EXPERTS.search(name):
        return Place.EXPERTS
    if _ROUTER.search(name):
        return Place.WHOLE
    module = module_of(name)
    if module == "c_proj":  # GPT-2's name for the last layer of attention and of the MLP
        module = "down_proj" if ".mlp." in name else "o_proj"
    place = _PLACES.get(module)
    if place is None:
        return Place.WHOLE if num_dimensions < 2 else Place.UNKNOWN
    return Place.WHOLE if place.is_by_columns and num_dimensions < 2 else place


def is_linear(name: str, num_dimensions: int) -> bool:
    """Whether it is the weight of a layer that quantisation while loading changes: neither vocabulary nor router, norm or bias."""
    if num_dimensions < 2 or name.endswith("_bias") or _ROUTER.search(name) or module_of(name) in _UNQUANTIZED:
        return False
    return place_of(name, num_dimensions) not in (Place.VOCABULARY, Place.TOWER, Place.UNKNOWN)


def layer_of(name: str) -> int | None:
    """The number of the decoder layer that it belongs to; None for what is beside them."""
    found = _LAYER.search(name)
    return None if found is None or _TOWER.search(name) else int(found[1])


def is_loaded(name: str) -> bool:
    """Whether the engine takes it from the checkpoint."""
    return _NOT_LOADED.search(name) is None


def is_head(name: str) -> bool:
    """Whether it belongs to the matrix that makes logits, which the last stage holds."""
    return module_of(name) in ("lm_head", "embed_out")


def module_of(name: str) -> str:
    """`model.layers.0.self_attn.q_proj.weight` -> `q_proj`; of an expert's tensor that is no module's (`experts.down_proj`) itself."""
    parts = name.split(".")
    if "weight" in parts[1:]:  # bitsandbytes' `q_proj.weight.absmax`
        return parts[parts.index("weight", 1) - 1]
    return parts[-1] if len(parts) == 1 or parts[-1] in _PLACES else parts[-2]
