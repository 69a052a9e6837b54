"""The old place of `machine/servers.py`."""

from benchmarks.machine.servers import BARE, TOKENPORT, VLLM, Contestant, Running, running

__all__ = ["BARE", "TOKENPORT", "VLLM", "Contestant", "Running", "running"]
