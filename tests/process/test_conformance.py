"""This checkout's server held to SageMaker's contract by the conformance tool, but for what measures speed."""

import os
import subprocess
import sys

import pytest

from serving.engine.embedded_model import ensure_model
from tests.conftest import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
WHILE_RUNNING = ["invocations", "streams", "headers", "batch", "websocket", "access", "limits", "overload"]
WHOLE_LIFE = ["start", "ping-loading", "ping-truthful", "ping-ready", *WHILE_RUNNING, "afterwards", "drain"]


def test_the_server_keeps_the_contract(cache_dir, request):
    if os.geteuid() == 0:
        # From start to end, without a network and with files that cannot be written: namespaces of its own are root's to make.
        model = ensure_model(cache_dir, lambda *_: None)
        target = ["--command", "container/serve serve", "--model", str(model), "--only", *WHOLE_LIFE]
    else:
        target = ["--url", request.getfixturevalue("server").url, "--only", *WHILE_RUNNING]
    command = [sys.executable, "-m", "container.conformance", *target]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, "\n".join(line for line in ended.stdout.splitlines() if not line.startswith("pass")) + ended.stderr
    assert ended.stdout.count("\npass") > 30, ended.stdout
