"""What vLLM's server takes for one step's tokens and sequences where nobody says: `get_batch_defaults` in vllm/engine/arg_utils.py."""

from serving.planner.hardware import Gpu

_GIB = 2**30
_LARGEST_BYTES, _LARGE_BYTES = 160 * _GIB, 70 * _GIB


def batch_defaults(gpu: Gpu, context: int, *, num_batched_tokens: int | None, num_seqs: int | None) -> tuple[int, int]:
    """`max_num_batched_tokens` and `max_num_seqs`, each as given if it is."""
    memory = gpu.usable_bytes.estimate
    if memory >= _LARGEST_BYTES:
        tokens, sequences = 16384, 1024
    elif memory >= _LARGE_BYTES and "a100" not in gpu.name.lower():
        tokens, sequences = 8192, 1024
    else:
        tokens, sequences = 2048, 256
    sequences = sequences if num_seqs is None else num_seqs
    if num_batched_tokens is None:
        num_batched_tokens = min(tokens, sequences * context)
    return num_batched_tokens, sequences if num_seqs is not None else min(sequences, num_batched_tokens)
