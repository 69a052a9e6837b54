"""Arithmetic rates and GPU bandwidth through torch; prints one line of JSON. A process of its own, since torch stays in memory.

    python -m benchmarks.machine.torch_limits

Matrix products are square and grow until one takes long enough to time; a kind that torch cannot do here is told with its reason. GPUs that
are the same by name are measured once, as one alone.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

_NUM_TRIES = 5
_MAX_TRIES = 50
_MIN_TIME_S = 0.3
_MIN_SECONDS = 0.02
_BUDGET_S = 3.0
"""For one way to make a product: where torch has only a slow way, the first small one tells enough."""
_CPU_SIZES = (512, 1024, 2048, 4096)
_GPU_SIZES = (2048, 4096, 8192)
_GPU_MIN_SECONDS = 0.002
_MAX_COPY_BYTES = 2**30
_FREE_SHARE = 0.2

Product = Callable[[], Any]
Make = Callable[[int, str], Product]
Wait = Callable[[], None]


def _floats(dtype: Any, *, is_transposed: bool) -> Make:
    def make(size: int, device: str) -> Product:
        first, second = (torch.ones((size, size), dtype=dtype, device=device) for _ in range(2))
        second = second.t() if is_transposed else second
        out = torch.empty((size, size), dtype=dtype, device=device)
        return lambda: torch.mm(first, second, out=out)

    return make


def _int8(size: int, device: str) -> Product:
    # cuBLASLt wants the second one column by column.
    first, second = torch.ones((size, size), dtype=torch.int8, device=device), torch.ones((size, size), dtype=torch.int8, device=device).t()
    return lambda: torch._int_mm(first, second)


def _int8_packed(size: int, device: str) -> Product:
    """oneDNN with the weights packed beforehand, as the engine has them."""
    if device != "cpu":
        raise NotImplementedError("for the CPU only")
    torch.backends.quantized.engine = "onednn"
    weight = torch.quantize_per_tensor(torch.ones((size, size)), 1.0, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(weight, None)
    first = torch.quantize_per_tensor(torch.ones((size, size)), 1.0, 0, torch.quint8)
    return lambda: torch.ops.quantized.linear(first, packed, 1.0, 0)


def _float8(size: int, device: str) -> Product:
    kind = torch.float8_e4m3fn
    first, second = torch.ones((size, size), device=device).to(kind), torch.ones((size, size), device=device).to(kind).t()
    scale = torch.ones((), device=device)
    return lambda: torch._scaled_mm(first, second, scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16)


def _both_ways(dtype: Any) -> Mapping[str, Make]:
    return {"mm": _floats(dtype, is_transposed=False), "mm, transposed": _floats(dtype, is_transposed=True)}


_KINDS: Mapping[str, Mapping[str, Make]] = {
    "float32": _both_ways(torch.float32),
    "bfloat16": _both_ways(torch.bfloat16),
    "float16": _both_ways(torch.float16),
    "int8": {"_int_mm": _int8, "oneDNN, packed": _int8_packed},
    "float8": {"_scaled_mm": _float8},
}


def rates(device: str, sizes: tuple[int, ...], least_s: float, wait: Wait) -> tuple[dict[str, Any], dict[str, str]]:
    """The rate of each kind by the best of its ways, and why of those that have none."""
    found: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    for kind, ways in _KINDS.items():
        runs: list[dict[str, Any]] = []
        for name, make in ways.items():
            try:
                runs += [{"kernel": name, **run} for run in _runs(make, device, sizes, least_s, wait)]
            except (RuntimeError, AttributeError, TypeError, ValueError) as error:
                unavailable.setdefault(kind, (str(error).strip().splitlines() or [type(error).__name__])[0][:200])
        if runs:
            unavailable.pop(kind, None)
            best = max(runs, key=lambda run: run["flops_per_s"])
            how = f"torch {torch.__version__}, {best['kernel']}, {best['size']} square"
            found[kind] = {"flops_per_s": best["flops_per_s"], "how": how, "runs": runs}
    return found, unavailable


def _runs(make: Make, device: str, sizes: tuple[int, ...], least_s: float, wait: Wait) -> list[dict[str, Any]]:
    until = time.perf_counter() + _BUDGET_S
    runs: list[dict[str, Any]] = []
    for size, larger in zip(sizes, (*sizes[1:], None), strict=True):
        try:
            product = make(size, device)
            _timed(product, wait)  # the first call chooses kernels and packs
        except RuntimeError:
            # Beside a server there may be no memory for the larger ones.
            if not runs:
                raise
            break
        seconds = [_timed(product, wait)]
        # Small ones are tried more often: each is over before the system gives the core to something else.
        enough = time.perf_counter() + _MIN_TIME_S
        while len(seconds) < _NUM_TRIES or (time.perf_counter() < enough and len(seconds) < _MAX_TRIES):
            if time.perf_counter() > until:
                break
            seconds.append(_timed(product, wait))
        runs.append({"size": size, "seconds": [round(one, 7) for one in seconds], "flops_per_s": 2 * size**3 / min(seconds)})
        # The larger one is made twice at least: the first time is not counted.
        if (
            larger is None
            or time.perf_counter() + 2 * min(seconds) * (larger / size) ** 3 > until
            or (len(runs) > 1 and min(seconds) > least_s)
        ):
            break
    return runs


def _timed(product: Product, wait: Wait) -> float:
    wait()
    started = time.perf_counter()
    product()
    wait()
    return time.perf_counter() - started


def _gpu(index: int) -> dict[str, Any]:
    device = f"cuda:{index}"
    torch.cuda.set_device(index)
    # FP32 means FP32: TF32 is another kind, with three decimal digits.
    torch.backends.cuda.matmul.allow_tf32 = False
    bandwidth = _gpu_bandwidth(device)
    found, unavailable = rates(device, _GPU_SIZES, _GPU_MIN_SECONDS, torch.cuda.synchronize)
    return {
        "device": device,
        "name": torch.cuda.get_device_name(index),
        "bandwidth": bandwidth,
        "rates": found,
        "unavailable": unavailable,
    }


def _gpu_bandwidth(device: str) -> dict[str, Any]:
    """Copies within the device, each byte read and written; and reads alone, by a sum."""
    free, _ = torch.cuda.mem_get_info()
    size = min(_MAX_COPY_BYTES, int(free * _FREE_SHARE)) // 4096 * 4096
    source, target = (torch.ones(size // 4, dtype=torch.float32, device=device) for _ in range(2))
    kernels: Mapping[str, tuple[int, Product]] = {"copy": (2, lambda: target.copy_(source)), "read, sum": (1, lambda: source.sum())}
    runs: list[dict[str, Any]] = []
    for name, (num_passes, kernel) in kernels.items():
        _timed(kernel, torch.cuda.synchronize)
        seconds = [_timed(kernel, torch.cuda.synchronize) for _ in range(4 * _NUM_TRIES)]
        moved = num_passes * size
        runs.append({"kernel": name, "bytes": moved, "seconds": [round(one, 7) for one in seconds], "bytes_per_s": moved / min(seconds)})
    best = max(runs, key=lambda run: run["bytes_per_s"])
    return {"bytes_per_s": best["bytes_per_s"], "kernel": best["kernel"], "array_bytes": size, "runs": runs}


def main() -> None:
    """Measure and print."""
    found, unavailable = rates("cpu", _CPU_SIZES, _MIN_SECONDS, lambda: None)
    result: dict[str, Any] = {"rates": found, "unavailable": unavailable, "gpus": []}
    if torch.cuda.is_available():
        by_name = {torch.cuda.get_device_name(index): index for index in reversed(range(torch.cuda.device_count()))}
        result["gpus"] = [_gpu(index) for index in sorted(by_name.values())]
    else:
        result["gpus_reason"] = "torch sees no CUDA GPU"
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
