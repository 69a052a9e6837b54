"""The machine's physical ceilings, measured on the spot: memory bandwidth and arithmetic rates, of the CPU and of each kind of GPU.

To be measured while nothing else runs; the document says when and how busy the machine was. A ceiling is the best of several tries of
several kernels, and every try is kept: a kernel that falls short of the hardware makes the ceiling too low, never too high. Arithmetic and
GPUs are measured through torch in a process of its own (`torch_limits.py`), where it is installed.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psutil

from benchmarks.machine.facts import busyness, last_level_cache_bytes, num_allowed_cpus
from benchmarks.machine.nvml import open_gpus

_NUM_TRIES = 8
_ARRAY_BYTES = 256 * 2**20
_CACHES = 8
"""An array is at least so many times the last-level cache, of which a virtual machine may not see all."""
_MEMORY_SHARE = 0.25
_MIN_ARRAY_BYTES = 16 * 2**20
_TORCH_DEADLINE_S = 180.0
_BUSY_SHARE = 0.1
_NUMPY_MATRIX = 2048

Kernel = Callable[[Any, Any, Any], Any]

_KERNELS: Mapping[str, tuple[int, Kernel]] = {
    # Passes over an array (each read and each written one counts, as in STREAM, https://www.cs.virginia.edu/stream/ref.html), and what
    # makes them. Several ways to read, since which one keeps up with the memory differs by processor.
    "read, maximum": (1, lambda first, second, out: np.maximum.reduce(first)),
    "read, sum": (1, lambda first, second, out: np.add.reduce(first)),
    "read, bitwise or": (1, lambda first, second, out: np.bitwise_or.reduce(first.view(np.uint64))),
    "copy": (2, lambda first, second, out: np.copyto(out, first)),
    "add": (3, lambda first, second, out: np.add(first, second, out=out)),
}


def measure(when: str = "before the load", environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The document's "limits". `when` is told in it. About ten seconds, and matrix products for up to `_TORCH_DEADLINE_S` more."""
    busy = busyness()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    num_threads = num_allowed_cpus()
    bandwidth = cpu_bandwidth(num_threads)
    through_torch, reason = _through_torch(environ)
    rates, unavailable = dict(through_torch.get("rates", {})), dict(through_torch.get("unavailable", {}))
    if "float32" not in rates:
        rates["float32"] = _numpy_rate()
    if reason is not None:
        unavailable |= {name: reason for name in ("bfloat16", "float16", "int8")}
    return {
        "measured": created,
        "when": when,
        "busy_before": {**busy, "gpu_utilisation": _gpu_utilisation()},
        "notes": _notes(busy),
        "cpu": {"num_threads": num_threads, "bandwidth": bandwidth, "rates": rates, "unavailable": unavailable},
        "gpus": through_torch.get("gpus", []),
        "gpus_reason": reason or through_torch.get("gpus_reason"),
        "definition": "Ceilings are the best of several tries; bandwidth counts bytes read and bytes written, FLOPs two for each "
        "multiplication with its addition.",
    }


def _gpu_utilisation() -> list[float | None]:
    """Of each GPU the share of time with a kernel running, as NVML tells it of the last moments; empty where there is none."""
    gpus, _ = open_gpus()
    if gpus is None:
        return []
    with gpus:
        return [reading.utilisation for reading in gpus.read()]


def _notes(busy: Mapping[str, Any]) -> list[str]:
    share = busy["cpu_busy_share"]
    if share <= _BUSY_SHARE:
        return []
    return [f"{share:.0%} of the machine's cores were busy with something else: the ceilings are too low, and shares of them too high"]


def cpu_bandwidth(num_threads: int, array_bytes: int | None = None, num_tries: int = _NUM_TRIES) -> dict[str, Any]:
    """Bytes a second of all `num_threads` together: the best try of the best kernel, and all tries. Each thread has arrays of its own,
    which it touches first, so that they lie in the memory near it; numpy lets the others run meanwhile."""
    each_bytes = array_bytes or _array_bytes(num_threads)
    arrays: list[tuple[Any, Any, Any]] = []
    _in_threads(num_threads, lambda number: arrays.append(_touched(each_bytes)))
    runs: list[dict[str, Any]] = []
    for name, (num_passes, kernel) in _KERNELS.items():
        moved = num_passes * each_bytes * num_threads
        seconds = [_in_threads(num_threads, _on(kernel, arrays)) for _ in range(num_tries)]
        runs.append({"kernel": name, "bytes": moved, "seconds": [round(one, 6) for one in seconds], "bytes_per_s": moved / min(seconds)})
    best = max(runs, key=lambda run: run["bytes_per_s"])
    return {"bytes_per_s": best["bytes_per_s"], "kernel": best["kernel"], "array_bytes": each_bytes * num_threads, "runs": runs}


def _on(kernel: Kernel, arrays: Sequence[tuple[Any, Any, Any]]) -> Callable[[int], Any]:
    return lambda number: kernel(*arrays[number])


def _array_bytes(num_threads: int) -> int:
    """Of one of the three arrays of each thread."""
    wanted = max(_ARRAY_BYTES, _CACHES * (last_level_cache_bytes() or 0)) / num_threads
    allowed = psutil.virtual_memory().available * _MEMORY_SHARE / (3 * num_threads)
    return max(_MIN_ARRAY_BYTES, int(min(wanted, allowed))) // 4096 * 4096


def _touched(size_bytes: int) -> tuple[Any, Any, Any]:
    count = size_bytes // 4
    return np.ones(count, np.float32), np.ones(count, np.float32), np.zeros(count, np.float32)


def _in_threads(num_threads: int, work: Callable[[int], Any]) -> float:
    """Seconds from the first's start to the last's end; what one raises is raised."""
    barrier = threading.Barrier(num_threads)
    spans: list[tuple[float, float]] = []
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait(timeout=60)
            started = time.perf_counter()
            work(number)
            spans.append((started, time.perf_counter()))
        except BaseException as error:  # raised again below, in the thread that can tell it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _numpy_rate() -> dict[str, Any]:
    """FP32 through numpy's BLAS, which uses all cores by itself."""
    size = _NUMPY_MATRIX
    first, second = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
    seconds = []
    for _ in range(_NUM_TRIES):
        started = time.perf_counter()
        np.matmul(first, second)
        seconds.append(time.perf_counter() - started)
    return {"flops_per_s": 2 * size**3 / min(seconds), "how": f"numpy matmul {size}", "seconds": [round(one, 6) for one in seconds]}


def _through_torch(environ: Mapping[str, str] | None) -> tuple[dict[str, Any], str | None]:
    """What `torch_limits` prints, or nothing and why."""
    command = [sys.executable, "-m", "benchmarks.machine.torch_limits"]
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=_TORCH_DEADLINE_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return {}, f"measuring through torch took longer than {_TORCH_DEADLINE_S:g} s"
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return {}, f"torch could not be used: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    found: dict[str, Any] = json.loads(lines[-1])
    return found, None


def rows(limits: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """For people: device, what, and the figure."""
    table = []
    devices = [("cpu", limits["cpu"]), *((gpu["device"], gpu) for gpu in limits["gpus"])]
    for name, device in devices:
        if (bandwidth := device["bandwidth"]) is not None:
            table.append([name, "memory bandwidth", f"{bandwidth['bytes_per_s'] / 1e9:.1f} GB/s ({bandwidth['kernel']})"])
        for kind, rate in device["rates"].items():
            table.append([name, kind, f"{rate['flops_per_s'] / 1e12:.3f} TFLOP/s ({rate['how']})"])
        for kind, why in device["unavailable"].items():
            table.append([name, kind, f"not measured: {why}"])
    if not limits["gpus"]:
        table.append(["gpu", "", f"not measured: {limits['gpus_reason']}"])
    return table
