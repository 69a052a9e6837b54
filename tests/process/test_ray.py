"""Two nodes of a real Ray cluster on this machine, and how far vLLM's CPU backend goes there.

Ray is an extra, and vLLM imports it wherever it is installed: it is put into a folder of its own, which only this test's processes see.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT, free_port

pytestmark = pytest.mark.engine

PACKAGES = ("ray==2.60.0", "msgpack==1.2.4")
RAY = [sys.executable, "-c", "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; sys.exit(main())", "start", "--block"]
NODE = ["--num-cpus", "1", "--object-store-memory", "100000000"]
DRIVER = """
import json, sys, time
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
give_up = time.monotonic() + 60
while len(ray.nodes()) < 2 and time.monotonic() < give_up:
    time.sleep(0.2)

@ray.remote(num_cpus=1)
def node():
    time.sleep(1)
    return ray.get_runtime_context().get_node_id()

nodes = ray.get([node.remote(), node.remote()])
from vllm.config import ParallelConfig
from vllm.v1.executor.ray_utils import initialize_ray_cluster
try:
    initialize_ray_cluster(ParallelConfig(tensor_parallel_size=2, distributed_executor_backend="ray"))
    refused = None
except ValueError as error:
    refused = str(error)
print(json.dumps([nodes, refused]))
"""


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    """Of processes that have Ray."""
    folder = ROOT / ".cache" / "-".join(PACKAGES).replace("==", "-")
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(unfinished)]
        subprocess.run([*install, *PACKAGES], check=True, timeout=280)
        unfinished.rename(folder)
    return {**os.environ, "PYTHONPATH": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def cluster(environ: dict[str, str]) -> Iterator[str]:
    """The address of a cluster of two nodes with a CPU each."""
    # Ray makes sockets in it, whose paths may have 107 characters.
    folder, address = tempfile.mkdtemp(prefix="ray-"), f"127.0.0.1:{free_port()}"
    host, port = address.split(":")
    head = ["--head", "--port", port, "--node-ip-address", host, "--include-dashboard", "false", "--temp-dir", folder]
    other = ["--address", address, "--node-ip-address", "127.0.0.2"]
    nodes = []
    try:
        for words in (head, other):
            nodes.append(subprocess.Popen([*RAY, *words, *NODE], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
            assert any("Ray runtime started" in line for line in nodes[-1].stdout or ()), "the node did not start"
        yield address
    finally:
        for process in reversed(nodes):
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_of_two_nodes_works_and_vllm_has_no_place_in_it_for_a_cpu(cluster, environ):
    done = subprocess.run([sys.executable, "-c", DRIVER, cluster], env=environ, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    nodes, refused = json.loads(done.stdout.splitlines()[-1])
    assert len(set(nodes)) == 2
    # When this changes, so should the refusal in `serving/engine/parallel.py`.
    assert refused == "current platform cpu does not support ray."
