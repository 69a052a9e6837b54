"""NVIDIA's management library behind a small protocol, so that what reads GPUs can be tried with made-up ones.

A value that a card does not give is None. The library is `pynvml` (package nvidia-ml-py), which installations without a GPU do not have.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

_THROTTLE_REASONS = {
    # https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html; idle (1) and a clock that the user has set (2) are none.
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal, software",
    0x40: "thermal, hardware",
    0x80: "power brake",
}


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One card at one moment. `energy_j` counts since the driver was loaded; `utilisation` is the share of time with a kernel running."""

    index: int
    power_w: float | None = None
    energy_j: float | None = None
    utilisation: float | None = None
    memory_used_bytes: int | None = None
    temperature_c: float | None = None
    throttle_reasons: tuple[str, ...] = ()


class Gpus(Protocol):
    """The GPUs of this machine, until closed."""

    def read(self) -> Sequence[GpuReading]:
        """All cards, now."""

    def describe(self) -> list[dict[str, Any]]:
        """`name`, `memory_bytes` and `driver` of each."""

    def __enter__(self) -> Self:
        """Nothing more than a block to close it after."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let the library go."""


def open_gpus() -> tuple[Gpus | None, str | None]:
    """The GPUs, or None and why there are none to be read."""
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        return None, "pynvml (package nvidia-ml-py) is not installed"
    try:
        library.nvmlInit()
        count = int(library.nvmlDeviceGetCount())
    except library.NVMLError as error:
        return None, f"NVML does not answer: {error}"
    if count == 0:
        library.nvmlShutdown()
        return None, "NVML sees no GPU"
    return NvmlGpus(library, count), None


class NvmlGpus:
    """`Gpus` through the library itself."""

    def __init__(self, library: Any, count: int) -> None:
        self._library = library
        self._handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]

    def read(self) -> Sequence[GpuReading]:
        """See `Gpus.read`."""
        return [self._read(index, handle) for index, handle in enumerate(self._handles)]

    def _read(self, index: int, handle: Any) -> GpuReading:
        nvml = self._library
        power_mw, energy_mj = self._ask(nvml.nvmlDeviceGetPowerUsage, handle), self._ask(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        rates, memory = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle), self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        throttle = self._ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
        return GpuReading(
            index=index,
            power_w=None if power_mw is None else power_mw / 1e3,
            energy_j=None if energy_mj is None else energy_mj / 1e3,
            utilisation=None if rates is None else rates.gpu / 100,
            memory_used_bytes=None if memory is None else int(memory.used),
            temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            throttle_reasons=tuple(name for bit, name in _THROTTLE_REASONS.items() if throttle & bit),
        )

    def describe(self) -> list[dict[str, Any]]:
        """See `Gpus.describe`."""
        nvml = self._library
        driver = self._ask(nvml.nvmlSystemGetDriverVersion)
        cards = ((self._ask(nvml.nvmlDeviceGetName, handle), self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)) for handle in self._handles)
        return [{"name": name, "memory_bytes": None if memory is None else int(memory.total), "driver": driver} for name, memory in cards]

    def _ask(self, question: Any, *about: Any) -> Any:
        try:
            return question(*about)
        except self._library.NVMLError:
            # Not every card answers everything: a slice of a MIG card has no power of its own, older ones no energy counter.
            return None

    def __enter__(self) -> Self:
        """See `Gpus`."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """See `Gpus`."""
        self._library.nvmlShutdown()
