"""Whether an adapter's weights fit the model, looked at in the worker, which alone knows all shapes, before the adapter is given a place.

vLLM 0.32 copies what is too small into a corner of its buffers, passes over layers that the model has not, and finds what is too large only
after it has thrown another adapter out and counts the new one as loaded.
"""

from collections.abc import Iterator
from typing import Any

import torch
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.linear import LinearBase, MergedColumnParallelLinear, QKVParallelLinear


def check_fit(lora: Any, manager: Any) -> None:
    """Compare vLLM's `LoRAModel` with the model in its `LoRAModelManager`.

    Raises:
        ValueError: a module is not in the model, lacks one of its two matrices, has another shape or a number that is none.
    """
    if not lora.loras:
        raise ValueError("the adapter has no weights")
    sizes = dict(_sizes(manager))
    # A rank of a pipeline holds some of the layers; `lora_target_modules` leaves modules out on purpose.
    is_whole = get_pp_group().world_size == 1 and manager.lora_config.target_modules is None
    for name, weights in lora.loras.items():
        a, b = weights.lora_a, weights.lora_b
        if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
            raise ValueError(f"{name} has only one of lora_A and lora_B")
        if name not in sizes:
            if is_whole and name not in manager.modules and ".experts" not in name:
                raise ValueError(f"{name} is no module of this model")
            continue
        _check_shapes(name, a, b, sizes[name], manager.lora_config.max_lora_rank)


def _check_shapes(name: str, a: torch.Tensor, b: torch.Tensor, size: tuple[int, int] | None, max_rank: int) -> None:
    rank = a.shape[0]
    if rank > max_rank:
        raise ValueError(f"{name} has rank {rank}, and at most {max_rank} is possible here (max_lora_rank)")
    if size is not None:
        num_in, num_out = size
        if tuple(a.shape) != (rank, num_in) or tuple(b.shape) != (num_out, rank):
            raise ValueError(
                f"{name}: lora_A is {list(a.shape)} and lora_B {list(b.shape)}, where this model needs [r, {num_in}] and [{num_out}, r]; "
                "the adapter was made for another base model"
            )
    if not torch.isfinite(a).all() or not torch.isfinite(b).all():
        raise ValueError(f"{name} holds a weight that is not a finite number")


def _sizes(manager: Any) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Each module by the name it has in an adapter, with its inputs and outputs over all ranks; None where another layout is usual."""
    for name, layer in manager.modules.items():
        parts = manager.packed_modules.get(name, [name])
        base = getattr(layer, "base_layer", None)
        outputs = list(_outputs(base))
        for index, part in enumerate(parts):
            yield part, (base.input_size, outputs[index]) if base is not None and len(outputs) == len(parts) else None


def _outputs(base: Any) -> Iterator[int]:
    if isinstance(base, QKVParallelLinear):
        yield base.total_num_heads * base.head_size
        yield base.total_num_kv_heads * base.head_size
        yield base.total_num_kv_heads * base.v_head_size
    elif isinstance(base, MergedColumnParallelLinear):
        yield from base.output_sizes
    elif isinstance(base, LinearBase):
        yield base.output_size
