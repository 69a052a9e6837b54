"""What makes vLLM use a CPU well: which cores, which OpenMP, how much memory. Pure functions over what was read from the machine.

vLLM's own defaults leave a core idle for the scheduler, run on GNU's OpenMP and refuse to start when 92 % of the memory is not free.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MEMORY_SHARE = 0.5
"""Of the memory that is free, what the engine takes. vLLM fills its KV cache at start, so this is memory in use from the first second, and
vLLM looks again some seconds later whether it is still free: the other half is for the neighbours."""


@dataclass(frozen=True)
class Cores:
    """The logical CPUs to compute on, one a physical core, and whether threads may be pinned to them."""

    ids: tuple[int, ...]
    can_pin: bool


def find_cores(allowed: Sequence[int], *, sys_cpu: Path = Path("/sys/devices/system/cpu"), cgroup: Path = Path("/sys/fs/cgroup")) -> Cores:
    """Pick one logical CPU of each physical core in `allowed`, and no more of them than the container's CPU quota pays for.

    Under a quota smaller than the cores, threads are not pinned: the kernel may run other containers on just those cores.
    """
    ids = sorted({min(set(_siblings(sys_cpu, cpu)) & set(allowed)) for cpu in allowed})
    quota = _cpu_quota(cgroup)
    if quota is not None and quota < len(ids):
        return Cores(tuple(ids[: max(1, math.floor(quota))]), can_pin=False)
    return Cores(tuple(ids), can_pin=True)


def openmp_environment(cores: Cores, num_ranks: int, libiomp: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables for the engine's processes; what the user set in `environ` stands.

    One rank computes inside the engine core, so OpenMP is configured here for all cores. Several ranks are processes of vLLM's, which it
    configures itself from a list of cores a rank. `libiomp` is Intel's OpenMP library where it is installed;
    whoever preloads GNU's keeps that.
    """
    chosen: dict[str, str] = {}
    if "libgomp" in environ.get("LD_PRELOAD", ""):
        libiomp = None
    if libiomp is not None:
        # First in the list: a process can have only one OpenMP, and PyTorch brings GNU's along.
        chosen["LD_PRELOAD"] = ":".join(filter(None, [str(libiomp), environ.get("LD_PRELOAD")]))
    if num_ranks > 1:
        share = max(1, len(cores.ids) // num_ranks)
        groups = [cores.ids[rank * share : (rank + 1) * share] or cores.ids[-1:] for rank in range(num_ranks)]
        chosen["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(",".join(map(str, group)) for group in groups)
    else:
        chosen["OMP_NUM_THREADS"] = str(len(cores.ids))
        if libiomp is not None:
            # vLLM's own values: long enough to bridge the gap to the next layer, short enough to leave the core to the server in between.
            chosen |= {"KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}
            if cores.can_pin:
                chosen["KMP_AFFINITY"] = f"granularity=fine,explicit,proclist=[{','.join(map(str, cores.ids))}]"
    return {name: value for name, value in chosen.items() if name == "LD_PRELOAD" or name not in environ}


def memory_fraction(available_bytes: int, total_bytes: int, num_ranks: int) -> float:
    """vLLM's `gpu_memory_utilization` for one rank: a share of what is free, as the fraction of all memory that vLLM wants to be told."""
    return max(0.01, math.floor(100 * _MEMORY_SHARE * available_bytes / total_bytes / num_ranks) / 100)


def _siblings(sys_cpu: Path, cpu: int) -> list[int]:
    try:
        text = (sys_cpu / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return [cpu]
    ranges = [part.split("-") for part in text.strip().split(",")]
    return [cpu, *(number for ends in ranges for number in range(int(ends[0]), int(ends[-1]) + 1))]


def _cpu_quota(cgroup: Path) -> float | None:
    """CPUs' worth of time that the container may use: cgroup v2's `cpu.max`, v1's `cpu.cfs_*`. None where there is no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except OSError:
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
