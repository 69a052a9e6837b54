"""Ceilings: what is counted, and what is said where something cannot be measured."""

import json
import subprocess
import sys
import types

import pytest

from benchmarks.machine import limits


def test_bandwidth_is_the_best_try_of_the_best_kernel_and_all_are_kept():
    found = limits.cpu_bandwidth(2, array_bytes=2**20, num_tries=3)
    assert found["bytes_per_s"] == max(run["bytes_per_s"] for run in found["runs"])
    passes = {run["kernel"]: run["bytes"] / (2 * 2**20) for run in found["runs"]}
    assert passes["copy"] == 2
    assert passes["add"] == 3
    assert passes["read, maximum"] == 1
    for run in found["runs"]:
        assert len(run["seconds"]) == 3
        assert run["bytes_per_s"] == pytest.approx(run["bytes"] / min(run["seconds"]), rel=0.02)


def test_kernels_do_all_of_their_work():
    first, second, out = limits._touched(4096)
    for _, kernel in limits._KERNELS.values():
        kernel(first, second, out)
    assert (out == 2).all(), "the last one adds"


def test_what_a_thread_raises_is_raised():
    def fails(_number):
        raise MemoryError("too much")

    with pytest.raises(MemoryError):
        limits._in_threads(2, fails)


def faked(monkeypatch, **fields):
    done = types.SimpleNamespace(**{"returncode": 0, "stdout": "", "stderr": "", **fields})
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(limits, "cpu_bandwidth", lambda _: {"bytes_per_s": 1e9, "kernel": "copy", "runs": []})
    monkeypatch.setattr(limits, "busyness", lambda: {"load_average_1min": 0.0, "cpu_busy_share": 0.5})
    monkeypatch.setattr(limits, "_NUMPY_MATRIX", 64)


def test_without_torch_the_reason_stands_in_place_of_the_rate(monkeypatch):
    faked(monkeypatch, returncode=1, stderr="Traceback\nModuleNotFoundError: No module named 'torch'\n")
    found = limits.measure("before the load")
    assert found["cpu"]["rates"].keys() == {"float32"}, "through numpy"
    assert "No module named 'torch'" in found["cpu"]["unavailable"]["int8"]
    assert "No module named 'torch'" in found["gpus_reason"]
    assert "50%" in found["notes"][0], "half of the machine was busy with something else"
    assert any("not measured" in row[2] for row in limits.rows(found))


def test_what_torch_measured_is_taken_over(monkeypatch):
    rate = '{"flops_per_s": 1e12, "how": "so"}'
    faked(
        monkeypatch, stdout=f'{{"rates": {{"float32": {rate}, "int8": {rate}}}, "unavailable": {{}}, "gpus": [], "gpus_reason": "none"}}\n'
    )
    found = limits.measure()
    assert found["cpu"]["rates"]["int8"]["flops_per_s"] == 1e12
    assert ["cpu", "int8", "1.000 TFLOP/s (so)"] in limits.rows(found)
    assert found["gpus_reason"] == "none"


def test_every_kind_of_product_has_a_rate_or_a_reason():
    # A process of its own: torch stays in memory.
    code = (
        "import json; from benchmarks.machine.torch_limits import rates, _KINDS; "
        "found, unavailable = rates('cpu', (32,), 0.0, lambda: None); "
        "print(json.dumps([list(_KINDS), {kind: rate['runs'] for kind, rate in found.items()}, unavailable]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    kinds, found, unavailable = json.loads(done.stdout.splitlines()[-1])
    assert set(found) | set(unavailable) == set(kinds)
    assert not set(found) & set(unavailable)
    for run in (run for runs in found.values() for run in runs):
        assert run["flops_per_s"] == pytest.approx(2 * 32**3 / min(run["seconds"]), rel=0.1)
    assert "float32" in found
    assert {run["kernel"] for run in found["float32"]} == {"mm", "mm, transposed"}
