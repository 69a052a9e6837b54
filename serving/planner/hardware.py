"""A GPU and an instance as the planner knows them. Where the figures come from is said in each; the table is `instances.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from serving.planner.interval import Interval

Link = Literal["nvlink", "pcie"]
Device = Literal["cuda", "cpu"]
"""What the engine is built for, by torch's names."""


@dataclass(frozen=True)
class Gpu:
    """`memory_bytes` as its maker says; `usable_bytes` as torch sees it. `flops_per_s` are dense rates by the type of the numbers (float16,
    float8, int8); a type that the hardware does not compute in is absent. `has_bfloat16`: 16 bits can be bfloat16, which vLLM refuses
    below compute capability 8.0."""

    name: str
    memory_bytes: int
    usable_bytes: Interval
    bandwidth_bytes_per_s: float
    flops_per_s: Mapping[str, float]
    source: str
    as_of: str
    device: Device = "cuda"
    has_bfloat16: bool = True


@dataclass(frozen=True)
class Instance:
    """`num_gpus` of one kind in one machine; `link` between them, None for one. `price_per_hour` in USD, None where no source was read.
    `host_memory_bytes`, and `disk_bytes` of its own NVMe disks, None where not known or where it has none. `unsupported`: why Tokenport
    does not run there, None if it does."""

    name: str
    gpu: Gpu
    num_gpus: int
    link: Link | None
    price_per_hour: float | None
    price_as_of: str | None
    price_source: str | None
    host_memory_bytes: int | None = None
    disk_bytes: int | None = None
    note: str | None = None
    unsupported: str | None = None
