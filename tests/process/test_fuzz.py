"""Bodies made from the server's own OpenAPI document, valid and not: whatever is sent, no 5xx and no dead engine.

`FUZZ_EXAMPLES` is how many random cases schemathesis makes for each route, beside those that cover the document's every constraint.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import start_server

pytestmark = [pytest.mark.engine, pytest.mark.timeout(3600)]

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "0")
# Short answers: most cases ask for as many tokens as there is room for.
SETTINGS = {"TOKENPORT_MAX_MODEL_LEN": "48", "TOKENPORT_OVERRIDE_GENERATION_CONFIG": '{"max_new_tokens": 4}'}
ROUTES = ("/invocations", "/v1/chat/completions")


def test_no_body_brings_a_5xx_or_the_end_of_the_engine(tmp_path: Path, cache_dir: Path):
    with start_server(tmp_path, cache_dir, **SETTINGS) as server:
        command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json", "--no-color"]
        command += [f"--include-path={route}" for route in ROUTES]
        command += ["--phases=coverage,fuzzing", f"--max-examples={EXAMPLES}"] if int(EXAMPLES) else ["--phases=coverage"]
        command += ["--checks=not_a_server_error", "--workers=4"]
        command += ["--request-timeout=60", "--no-shrink", "--continue-on-failure", "--suppress-health-check=all", "--warnings=off"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3500)
        print(ended.stdout[-6000:])
        # Not the exit code: Python 3.11's parser at times fails under the tool, which says nothing of the server.
        told = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
        assert told is not None, ended.stdout[-3000:] + ended.stderr[-1000:]
        num_generated, num_passed = int(told[1]), int(told[2])
        assert num_passed == num_generated, ended.stdout[-6000:]
        assert num_generated > 1000 + 2 * int(EXAMPLES)
        answer = httpx.post(f"{server.url}/invocations", json={"prompt": "Water is", "max_tokens": 3}, timeout=60)
        assert answer.status_code == 200
        assert server.process.poll() is None
