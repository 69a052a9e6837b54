"""NVML's units and refusals, against a made-up library."""

import sys
import types

import pytest

from benchmarks.machine.nvml import GpuReading, open_gpus


class NVMLError(Exception):
    """As pynvml's."""


def library(**changes):
    def refuses(*_):
        raise NVMLError("not supported")

    answers = {
        "NVMLError": NVMLError,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: f"card {index}",
        "nvmlDeviceGetPowerUsage": lambda _: 250_000,
        "nvmlDeviceGetTotalEnergyConsumption": refuses,
        "nvmlDeviceGetUtilizationRates": lambda _: types.SimpleNamespace(gpu=75),
        "nvmlDeviceGetMemoryInfo": lambda _: types.SimpleNamespace(used=2**30, total=2**34),
        "nvmlDeviceGetTemperature": lambda _handle, _kind: 61,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 0x1 | 0x4 | 0x40,
        "nvmlDeviceGetName": lambda _: "A Card",
        "nvmlSystemGetDriverVersion": lambda: "580.1",
    }
    return types.SimpleNamespace(**answers | changes)


def test_values_are_in_base_units_and_refusals_are_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", library())
    gpus, reason = open_gpus()
    assert reason is None
    with gpus:
        assert gpus.read() == [GpuReading(0, 250.0, None, 0.75, 2**30, 61, ("power cap", "thermal, hardware"))]
        assert gpus.describe() == [{"name": "A Card", "memory_bytes": 2**34, "driver": "580.1"}]


def test_energy_is_in_joules(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", library(nvmlDeviceGetTotalEnergyConsumption=lambda _: 12_500))
    gpus, _ = open_gpus()
    assert gpus.read()[0].energy_j == 12.5


def fails():
    raise NVMLError("driver not loaded")


@pytest.mark.parametrize(
    ("module", "word"),
    [(None, "not installed"), (library(nvmlInit=fails), "driver not loaded"), (library(nvmlDeviceGetCount=lambda: 0), "no GPU")],
)
def test_why_there_are_none(monkeypatch, module, word):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    gpus, reason = open_gpus()
    assert gpus is None
    assert word in reason
