"""The conformance tool against a server that keeps every sentence of the contract but one: exactly that check must fail."""

import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from container.conformance import checks_limits
from container.conformance.check import Check, carry_out
from container.conformance.client import Client
from container.conformance.network import has_privilege
from container.conformance.plan import STAGES, names
from container.conformance.server import Server
from tests.conftest import ROOT, free_port

SERVER = ROOT / "tests" / "container" / "exemplary_server.py"

CHECKS = {check.name: check for stage in STAGES for checks in stage.groups.values() for check in checks}
ANSWERING = [
    check
    for stage in STAGES
    for group, checks in stage.groups.items()
    if group in ("invocations", "streams", "headers", "batch", "adapters", "websocket", "access", "limits")
    for check in checks
]
needs_root = pytest.mark.skipif(not has_privilege(), reason="namespaces need root on Linux, with the right to make them")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, str(SERVER), str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        with Client(url) as client:
            while client.ping().status != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def broken(url: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server with the fault that the test is parametrized with."""
    httpx.post(f"{url}/fault/{request.param}")
    with Client(url) as client:
        yield Server(client)
    httpx.post(f"{url}/fault/none")


def failures(server: Server, checks: Collection[Check]) -> dict[str, str]:
    results = [carry_out(check, "", server) for check in checks]
    return {result.check.name: result.told for result in results if result.outcome == "fail"}


@pytest.mark.parametrize("broken", ["none"], indirect=True)
def test_nothing_fails_at_a_server_that_keeps_the_contract(broken):
    assert failures(broken, ANSWERING) == {}


@pytest.mark.parametrize(
    ("broken", "name"),
    [(check.name, check.name) for check in ANSWERING],
    indirect=["broken"],
)
def test_a_check_fails_where_its_sentence_is_broken_and_no_other_does(broken, name):
    group = [check for check in ANSWERING if names()[check.name] == names()[name]]
    failed = failures(broken, group)
    assert list(failed) == [name], failed


@pytest.mark.parametrize("broken", ["ping-ready"], indirect=True)
def test_a_ping_with_a_body_is_noticed(broken):
    assert "not empty" in failures(broken, [CHECKS["ping-ready"]])["ping-ready"]


@pytest.mark.parametrize("broken", ["ping-under-load"], indirect=True)
def test_a_ping_that_is_slow_under_load_is_noticed(broken):
    assert "p99" in failures(broken, [CHECKS["ping-under-load"]])["ping-under-load"]


@pytest.mark.parametrize("broken", ["none"], indirect=True)
def test_a_ping_that_is_quick_under_load_passes(broken):
    assert failures(broken, [CHECKS["accepts-under-load"]]) == {}


@pytest.mark.parametrize(("broken", "is_bounded"), [("none", True), ("overload", False)], indirect=["broken"])
def test_a_queue_without_a_bound_is_noticed(broken, is_bounded, monkeypatch):
    # Long enough answers that, however slowly a busy machine sends the requests, more run at once than the server takes.
    monkeypatch.setattr(checks_limits, "_LOADS", ((300, 50),))
    failed = failures(broken, [CHECKS["overload"]])
    if is_bounded:
        assert failed == {}
    else:
        assert "nothing bounds the queue" in failed["overload"]


def conformance(tmp_path: Path, *words: str, fault: str = "none") -> tuple[int, dict[str, str]]:
    """Run the tool on the server: its exit code, and each check's outcome."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    junit = tmp_path / "junit.xml"
    command = f"{sys.executable} {SERVER} 0 {fault}"
    tool = [sys.executable, "-m", "container.conformance", "--profile", "tokenport", "--command", command, "--model", str(model)]
    ended = subprocess.run([*tool, "--junit", str(junit), *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert junit.exists(), ended.stdout + ended.stderr
    outcomes = {}
    for case in ElementTree.parse(junit).getroot():
        marks = {child.tag for child in case} & {"failure", "skipped"}
        outcomes[case.attrib["name"]] = marks.pop() if marks else "pass"
    return ended.returncode, outcomes


def test_a_good_server_starts_runs_and_ends_as_it_should(tmp_path):
    groups = (
        "start",
        "health",
        "afterwards",
        "drain",
        "default port",
        "keys",
        "drain deadline",
        "second signal",
        "kill-engine",
        "stop-engine",
    )
    markdown = tmp_path / "table.md"
    code, outcomes = conformance(tmp_path, "--only", *groups, "--markdown", str(markdown))
    wrong = {name: outcome for name, outcome in outcomes.items() if outcome != "pass"}
    assert set(wrong.values()) <= ({"skipped"} if not has_privilege() else set()), wrong
    assert code == 0
    assert "| kill -9 of the engine core | 503" in markdown.read_text()


@pytest.mark.parametrize(
    ("fault", "only"),
    [
        ("accepts-early", "start"),
        ("ping-loading", "health"),
        ("ports-in-range", "afterwards"),
        pytest.param("reachable", "start", marks=needs_root),
        pytest.param("no-way-out", "afterwards", marks=needs_root),
        ("drain-ping", "drain"),
        ("drain-refuses", "drain"),
        ("drain-stream", "drain"),
        ("drain-exit", "drain"),
        ("api-key", "keys"),
        ("default-port", "default port"),
        ("deadline-stream", "drain deadline"),
        ("second-sigterm", "second signal"),
        ("answer-deadline", "answer-deadline"),
        ("kill-engine", "kill-engine"),
        ("stop-engine", "stop-engine"),
    ],
)
def test_a_server_that_starts_or_ends_wrongly_fails_by_that_name(tmp_path, fault, only):
    code, outcomes = conformance(tmp_path, "--only", only, "--start-limit", "10", fault=fault)
    assert [name for name, outcome in outcomes.items() if outcome == "failure"] == [fault]
    assert code == 1


@needs_root
def test_a_server_that_writes_outside_of_tmp_does_not_start(tmp_path):
    code, outcomes = conformance(tmp_path, "--only", "read-only-root", fault="read-only-root")
    assert (code, outcomes) == (1, {"read-only-root": "failure"})


def test_a_server_that_never_gets_ready_fails_every_check_of_that_start(tmp_path):
    code, outcomes = conformance(tmp_path, "--only", "chat", "ping-ready", "--start-limit", "3", fault="never-ready")
    assert (code, outcomes) == (1, {"chat": "failure", "ping-ready": "failure"})


def run_tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "container.conformance", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--command, --image or --url"),
        (("--command", "true"), "--model"),
        (("--command", "true", "--model", "/no/such/folder"), "/no/such/folder"),
        (("--command", "no-such-program", "--model", "/"), "no-such-program"),
        (("--url", "http://127.0.0.1:1", "--only", "no-such-check"), "no-such-check"),
        (("--command", "true", "--model", "/", "--env", "NAME"), "NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_says_why(words, said):
    ended = run_tool(*words)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_a_running_server_is_tested_by_its_url(url, tmp_path):
    ended = run_tool("--url", url, "--only", "chat", "first-process", "second-sigterm")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()[1:4]] == ["skip", "pass", "skip"]
