"""What each rank notes for the memory ledger while it starts, and measures when asked. Runs in the engine's processes.

Noted: weights as kernels repack them out of torch's sight, the KV cache's capacity, the CUDA graphs. Measured: once, when the first token
has been produced, what the process has at rest; then only what changes, which costs microseconds.
"""

import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from serving.engine.ledger import own_bytes
from serving.engine.ledger_system import gpu_processes, machine_memory, proc_fields, reset_high_water
from serving.engine.replacing import replace

METHOD = "tokenport_memory"
"""By this name vLLM calls `measure` in each rank."""
_NOTES = "_tokenport_ledger"

_packed: "weakref.WeakKeyDictionary[object, tuple[str, int]]" = weakref.WeakKeyDictionary()
"""Type and bytes of each weight that lives on in a kernel's own layout only, by the layer or kernel that keeps it."""


@dataclass
class Notes:
    """What one worker has noted. `graph_reserved_bytes`: the part of the graphs that torch's allocator has."""

    num_blocks: int = 0
    num_tokens: int = 0
    num_sequences: float = 0.0
    graph_bytes: int = 0
    graph_reserved_bytes: int = 0
    rest: "Rest | None" = None


@dataclass(frozen=True)
class Rest:
    """The process when it had produced a token and had nothing to do. On the CPU `process_bytes`, with its share of what it shares with
    others, `resident_bytes`, with all of it, and `high_water_bytes`, the most that it had been."""

    weights_by_dtype: dict[str, int]
    kv_cache_bytes: int
    process_bytes: int = 0
    resident_bytes: int = 0
    high_water_bytes: int = 0


def install() -> None:
    """Have vLLM's workers note and measure."""
    import vllm._custom_ops as operators
    import vllm.model_executor.layers.utils as layers
    from vllm.v1.worker.gpu_worker import Worker

    replace(layers, "dispatch_cpu_unquantized_gemm", _noting_removed_weights)
    replace(operators, "create_onednn_scaled_mm", _noting_packed_weights)
    replace(Worker, "initialize_from_config", _noting_capacity)
    setattr(Worker, METHOD, measure)


def _noting_removed_weights(original: Callable[..., Any]) -> Callable[..., Any]:
    """16-bit layers: the kernel has its own copy, and torch's is replaced by an empty one, or stays because it is needed as it is."""

    def dispatch(layer: Any, remove_weight: bool) -> None:
        weight = layer.weight
        name, num_bytes = _name(weight.dtype), weight.nbytes
        original(layer, remove_weight)
        if layer.weight is not weight and layer.weight.numel() == 0:
            _packed[layer] = (name, num_bytes)

    return dispatch


def _noting_packed_weights(original: Callable[..., Any]) -> Callable[..., Any]:
    """INT8 layers: what oneDNN has packed is given up by the layer."""

    def create(weight: Any, *args: Any, **kwargs: Any) -> Any:
        handler = original(weight, *args, **kwargs)
        _packed[handler] = (_name(weight.dtype), weight.nbytes)
        return handler

    return create


def _noting_capacity(original: Callable[..., Any]) -> Callable[..., Any]:
    def initialize_from_config(self: Any, kv_cache_config: Any) -> None:
        from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity

        notes = _notes(self)
        notes.num_blocks = kv_cache_config.num_blocks
        if kv_cache_config.kv_cache_groups:
            notes.num_tokens, notes.num_sequences = get_kv_cache_capacity(self.vllm_config, kv_cache_config)
        if self.device.type != "cpu":
            _note_graphs(self.model_runner, notes)
        original(self, kv_cache_config)

    return initialize_from_config


def _note_graphs(runner: Any, notes: Notes) -> None:
    """Have the runner's capture noted: vLLM returns how much less is free after it; some of that is in torch's allocator, some is not."""
    import torch

    capture = runner.capture_model

    def capture_model(*args: Any, **kwargs: Any) -> int:
        torch.accelerator.empty_cache()
        before = torch.accelerator.memory_reserved()
        taken: int = capture(*args, **kwargs)
        torch.accelerator.empty_cache()
        notes.graph_bytes = max(0, taken)
        notes.graph_reserved_bytes = min(notes.graph_bytes, max(0, torch.accelerator.memory_reserved() - before))
        return taken

    runner.capture_model = capture_model


def measure(worker: Any) -> dict[str, Any]:
    """The fields of `ledger.Measured`. The first call takes note of what stays, so it must come after warm-up and before traffic."""
    notes, on_cpu = _notes(worker), worker.device.type == "cpu"
    if notes.rest is None:
        notes.rest = _rest(worker, on_cpu=on_cpu)
    parallel = worker.vllm_config.parallel_config
    return {
        "rank": parallel.data_parallel_index * parallel.world_size + worker.rank,
        "device": str(worker.device),
        "weights_by_dtype": notes.rest.weights_by_dtype,
        "kv_cache_bytes": notes.rest.kv_cache_bytes,
        "kv_cache_blocks": notes.num_blocks,
        "kv_cache_tokens": notes.num_tokens,
        "kv_cache_sequences": notes.num_sequences,
        "cuda_graph_bytes": notes.graph_bytes,
        **(_on_cpu(notes.rest) if on_cpu else _on_gpu(worker, notes, notes.rest)),
    }


def _rest(worker: Any, *, on_cpu: bool) -> Rest:
    runner = worker.model_runner
    kv_caches = storages(flat(runner.kv_caches))
    weights = weights_by_dtype(_models(runner), worker.device, seen=set(kv_caches))
    kv_cache_bytes = sum(kv_caches.values())
    if not on_cpu:
        import torch

        # From here on the allocator's peak is that of serving; what profiling found is kept by the worker.
        torch.accelerator.reset_peak_memory_stats(worker.device)
        return Rest(weights, kv_cache_bytes)
    reset_high_water()
    shares, status = proc_fields("smaps_rollup"), proc_fields("status")
    return Rest(weights, kv_cache_bytes, shares["Pss"] + shares["SwapPss"], status["VmRSS"], status["VmHWM"])


def _on_cpu(rest: Rest) -> dict[str, int]:
    """What grew since the process was at rest is private to it, so the cheap resident size stands in for the costly proportional one."""
    status = proc_fields("status")
    grown = status["VmRSS"] - rest.resident_bytes
    total, free = machine_memory()
    return {
        "total_bytes": total,
        "free_bytes": free,
        "process_bytes": rest.process_bytes + grown,
        "activation_held_bytes": max(0, grown),
        # Where the high water could not be reset, it tells nothing before it has risen above that of loading.
        "activation_peak_bytes": status["VmHWM"] - rest.resident_bytes if status["VmHWM"] > rest.high_water_bytes else 0,
    }


def _on_gpu(worker: Any, notes: Notes, rest: Rest) -> dict[str, int]:
    """What torch has reserved beyond weights, KV cache and graphs is what steps have left for the next ones. The peak is the larger of the
    one that vLLM found when it profiled, less its guess of the graphs, and of the allocator's since."""
    import torch

    free, total = torch.accelerator.get_memory_info(worker.device)
    reserved = torch.accelerator.memory_reserved(worker.device)
    statistics = torch.accelerator.memory_stats(worker.device)
    stays = sum(rest.weights_by_dtype.values()) + rest.kv_cache_bytes + notes.graph_reserved_bytes
    return {
        "total_bytes": total,
        "free_bytes": free,
        "process_bytes": own_bytes(gpu_processes(worker.device), os.getpid(), reserved, total - free),
        "activation_held_bytes": max(0, reserved - stays),
        "activation_peak_bytes": max(_profiled_peak(worker), statistics.get("allocated_bytes.all.peak", 0) - stays),
    }


def _profiled_peak(worker: Any) -> int:
    """Of vLLM's profile run; 0 where the size of the KV cache was given, which skips it."""
    from vllm import envs

    guess = worker.cudagraph_memory_estimate if envs.VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS and _was_profiled(worker) else 0
    return max(0, worker.peak_activation_memory - guess) if _was_profiled(worker) else 0


def _was_profiled(worker: Any) -> bool:
    return hasattr(worker, "peak_activation_memory")


def _notes(worker: Any) -> Notes:
    if not hasattr(worker, _NOTES):
        setattr(worker, _NOTES, Notes())
    notes: Notes = getattr(worker, _NOTES)
    return notes


def _models(runner: Any) -> list[Any]:
    """The model, and the draft model of speculative decoding where there is one."""
    drafters = (getattr(runner, name, None) for name in ("drafter", "speculator"))
    drafts = (getattr(drafter, "model", None) for drafter in drafters)
    return [runner.get_model(), *(draft for draft in drafts if hasattr(draft, "modules"))]


def weights_by_dtype(models: Iterable[Any], device: Any, *, seen: set[int]) -> dict[str, int]:
    """Bytes of the models' parameters and buffers, of the tensors that layers keep beside them (LoRA's places), and of what was packed.

    A storage counts once, for the type that it is first met with; those `seen` (by address) do not count.
    """
    totals: Counter[str] = Counter()
    for tensor in (tensor for model in models for module in model.modules() for tensor in flat(vars(module).values())):
        storage = tensor.untyped_storage()
        if tensor.device.type != device.type or storage.data_ptr() in seen:
            continue
        seen.add(storage.data_ptr())
        totals[_name(tensor.dtype)] += storage.nbytes()
    for name, num_bytes in _packed.values():
        totals[name] += num_bytes
    return {name: num_bytes for name, num_bytes in totals.items() if num_bytes}


def storages(tensors: Iterable[Any]) -> dict[int, int]:
    """Address -> bytes of what is behind `tensors`."""
    return {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}


def flat(values: Iterable[Any], depth: int = 2) -> Iterator[Any]:
    """The tensors among `values`, and in the lists, tuples and dictionaries among them."""
    import torch

    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif depth and isinstance(value, list | tuple | dict):
            yield from flat(value.values() if isinstance(value, dict) else value, depth - 1)


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
