"""What the operating system and the driver say about memory, for the ledger: /proc, the container's cgroup, NVML."""

from pathlib import Path
from typing import Any

import psutil

_KIB = 1024
_RESET_HIGH_WATER = "5"
"""Written to `clear_refs`: see proc_pid_clear_refs(5)."""


def proc_fields(name: str, process: str = "self") -> dict[str, int]:
    """The lines of /proc/PROCESS/`name` that are in kB, in bytes."""
    lines = (line.split() for line in Path("/proc", process, name).read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * _KIB for words in lines if len(words) == 3 and words[2] == "kB"}


def reset_high_water() -> None:
    """Have this process's `VmHWM` start again from what is resident now, where the kernel allows that."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_HIGH_WATER)
    except OSError:
        return


def machine_memory(cgroups: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """All memory and what is available of it: the machine's, or the container's where its limit is lower."""
    memory = psutil.virtual_memory()
    limit, used = _container_memory(cgroups)
    if limit is None or limit >= memory.total:
        return memory.total, memory.available
    return limit, max(0, min(memory.available, limit - used))


def _container_memory(cgroups: Path) -> tuple[int | None, int]:
    """The limit, None without one, and what is used of it: of cgroup v2, else v1.

    A cgroup's usage counts the files that it has read, too; those the kernel would drop first are as good as free.
    """
    for folder, limit, usage, inactive in (
        (cgroups, "memory.max", "memory.current", "inactive_file"),
        (cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            words = [(folder / name).read_text().split() for name in (limit, usage, "memory.stat")]
        except OSError:
            continue
        figures = dict(zip(words[2][::2], words[2][1::2], strict=True))
        return None if words[0] == ["max"] else int(words[0][0]), int(words[1][0]) - int(figures.get(inactive, 0))
    return None, 0


def gpu_processes(device: Any) -> list[tuple[int, int | None]]:
    """NVML's list of who uses the GPU, empty where it cannot be had (MIG, a driver that withholds it)."""
    import torch
    from vllm.third_party import pynvml

    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            return [(process.pid, process.usedGpuMemory) for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return []
