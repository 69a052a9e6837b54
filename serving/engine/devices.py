"""The devices that the engine runs on, as the planner knows them: the visible GPUs, or a CPU with its memory."""

import re
from dataclasses import replace

from serving.engine.ledger_system import machine_memory
from serving.planner.hardware import Gpu
from serving.planner.instances import load_hardware
from serving.planner.interval import exactly


def visible_gpus() -> list[Gpu]:
    """Those that this process may use. vLLM asks the driver, and leaves CUDA uninitialised in this process."""
    import torch
    from vllm.platforms import current_platform

    numbers = range(current_platform.device_count())
    gpus = [as_gpu(current_platform.get_device_name(number), current_platform.get_device_total_memory(number)) for number in numbers]
    return [replace(gpu, has_bfloat16=torch.bfloat16 in current_platform.supported_dtypes) for gpu in gpus]


def as_gpu(name: str, num_bytes: int) -> Gpu:
    """A GPU by the driver's name for it: with the rates of the planner's table where it is there, else with none."""
    words = set(re.split(r"[\s-]+", name))
    alike = [gpu for gpu in load_hardware().gpus.values() if set(gpu.name.partition("-")[0].split()) <= words]
    known = min(alike, key=lambda gpu: abs(gpu.memory_bytes - num_bytes), default=_bare(name))
    return replace(known, name=name, memory_bytes=num_bytes, usable_bytes=exactly(num_bytes))


def devices_for(num_ranks: int, *, on_cpu: bool) -> list[Gpu]:
    """What there is to start on: the visible GPUs; of the CPU for each of `num_ranks` its part of the machine's memory, or of the
    container's."""
    return [as_cpu(machine_memory()[0] // num_ranks)] * num_ranks if on_cpu else visible_gpus()


def as_cpu(num_bytes: int) -> Gpu:
    """The CPU with so much memory as a device."""
    return replace(_bare("the CPU"), memory_bytes=num_bytes, usable_bytes=exactly(num_bytes), device="cpu")


def _bare(name: str) -> Gpu:
    return Gpu(name, 0, exactly(0), bandwidth_bytes_per_s=0.0, flops_per_s={}, source="this machine", as_of="now")
