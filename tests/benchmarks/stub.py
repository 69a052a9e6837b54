"""The scripted server for tests: `with running_stub(ttft_s=0.2, itl_s=0.02) as stub`, then `stub.url` and `stub.received()`."""

from benchmarks.client.running_stub import Stub, running_stub

__all__ = ["Stub", "running_stub"]
