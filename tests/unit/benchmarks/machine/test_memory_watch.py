"""The most memory of each phase."""

import time

from benchmarks.machine.memory_watch import MemoryWatch
from benchmarks.machine.nvml import GpuReading


class Server:
    """As much of a server as is looked at."""

    size = 100

    def pss_bytes(self):
        return self.size


class Gpus:
    """Two cards of which 10 bytes each were used before."""

    used = 10

    def read(self):
        return [GpuReading(index=0, memory_used_bytes=self.used), GpuReading(index=1, memory_used_bytes=10)]


def looked(watch, phase, size):
    until = time.monotonic() + 20
    while watch.peaks.get(phase, {}).get("pss_bytes") != size:
        assert time.monotonic() < until
        time.sleep(0.005)


def test_each_phase_has_its_own_peak_and_what_falls_again_is_kept():
    server, gpus = Server(), Gpus()
    with MemoryWatch(server, gpus, interval_s=0.005) as watch:
        watch.begin("loading")
        server.size, gpus.used = 300, 60
        looked(watch, "loading", 300)
        time.sleep(0.05)
        server.size = 200
        time.sleep(0.05)
        watch.begin("under load")
        looked(watch, "under load", 200)
    assert watch.peaks["loading"]["pss_bytes"] == 300
    assert watch.peaks["loading"]["gpu_used_bytes"] == 50, "less what was used before the start"


def test_a_server_elsewhere_has_no_processes_to_look_at():
    with MemoryWatch(None, None, interval_s=0.005) as watch:
        watch.begin("under load")
        time.sleep(0.05)
    assert watch.peaks.get("under load", {}) == {}
