"""`tokenport bench throughput` against a server of known timing: for each trap the numbers that must come out.

The machine may be busy: a wait is never shorter than scripted, and longer by what the tolerances allow.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from tests.benchmarks.stub import Stub, running_stub

LATE_S = 0.06
DEADLINE_S = 120
LENGTHS = ["--input-len", "20", "--output-len", "8"]


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run the command in this process: its exit code and its document."""

    def run(stub: Stub, *words: str) -> tuple[int, dict[str, Any]]:
        out = tmp_path / "run.json"
        code = main(["throughput", "--url", stub.url, "--model", "stub", "--out", str(out), *words], {})
        return code, json.loads(out.read_text())

    return run


@pytest.fixture(scope="module")
def steady() -> Iterator[Stub]:
    with running_stub(ttft_s=0.1, itl_s=0.03) as stub:
        yield stub


def test_known_timing_comes_out(steady, measure):
    for _ in range(3):
        code, found = measure(steady, "--concurrency", "4", "--num-requests", "40", *LENGTHS)
        # On a busy machine the client is kept waiting; it says so itself, and what it measured counts for nothing.
        if code == 0:
            break
    assert (code, found["valid"], found["invalid_reasons"]) == (0, True, [])
    metrics = found["metrics"]
    assert 0.1 <= metrics["ttft_s"]["p50"] < 0.1 + LATE_S
    assert metrics["tpot_s"]["mean"] == pytest.approx(0.03, abs=0.01)
    assert metrics["itl_s"]["mean"] == pytest.approx(0.03, abs=0.01)
    assert 0.31 <= metrics["e2e_s"]["p50"] < 0.31 + LATE_S
    # Four streams of 8 tokens each 0.31 s, less what the machine takes.
    assert 0.6 * 4 * 8 / 0.31 < metrics["output_tokens_per_s"] < 1.05 * 4 * 8 / 0.31
    assert metrics["requests_per_s"] == pytest.approx(metrics["output_tokens_per_s"] / 8, rel=0.1)
    assert metrics["tokens"]["counted_by"] == "usage"
    # Too few for a p99, as the document says.
    assert metrics["ttft_s"]["p99"] is None
    assert set(found["from_send"]) == set(metrics)
    assert len(found["requests"]) == 40
    assert found["requests"][0]["arrivals_s"][0] - found["requests"][0]["sent_s"] >= 0.1


def test_a_stalled_server_shows_in_the_tail_from_the_scheduled_time(measure):
    with running_stub(ttft_s=0.02, itl_s=0.005) as stub:
        threading.Thread(target=_stall, args=(stub, 60, 1.5), daemon=True).start()
        # One request at a time may be under way: while the server stalls nothing is sent, and from send only one request looks slow.
        words = ("--rate", "30", "--arrivals", "constant", "--concurrency", "8", "--num-requests", "150", "--warmup", "0", *LENGTHS)
        _, found = measure(stub, *words)
    assert found["metrics"]["ttft_s"]["p99"] > 1.0
    slow_from_schedule = sum(_ttft(request, "scheduled_s") > 0.7 for request in found["requests"])
    slow_from_send = sum(_ttft(request, "sent_s") > 0.7 for request in found["requests"])
    # A good part of the 45 requests due meanwhile had to wait for long, though only as many as there are places were sent.
    assert slow_from_schedule >= 15
    assert slow_from_send <= 10


def _stall(stub: Stub, after: int, seconds: float) -> None:
    """Stop the server's process once it has been sent so many requests."""
    while len(stub.received()) < after:
        time.sleep(0.05)
    os.kill(stub.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(stub.pid, signal.SIGCONT)


def _ttft(request: dict[str, Any], origin: str) -> float:
    return request["arrivals_s"][0] - request[origin]


def test_tokens_that_come_merged_are_counted_as_tokens(measure):
    with running_stub(ttft_s=0.05, itl_s=0.02, tokens_per_event=4) as stub:
        _, found = measure(stub, "--concurrency", "2", "--num-requests", "20", "--input-len", "20", "--output-len", "16")
    metrics = found["metrics"]
    assert metrics["tokens"]["output"] == 16 * metrics["num_requests"]
    assert metrics["tokens"]["pieces"] == 4 * metrics["num_requests"]
    # 12 tokens came after the first piece, in 12 times 20 ms.
    assert metrics["tpot_s"]["mean"] == pytest.approx(0.02, abs=0.006)
    assert metrics["itl_s"]["mean"] == pytest.approx(0.08, abs=0.02)


def test_refused_requests_count_and_never_vanish(measure):
    with running_stub(ttft_s=0.02, itl_s=0.002, status=429, status_every=5) as stub:
        _, found = measure(stub, "--concurrency", "2", "--num-requests", "40", "--slo", "ttft=5s", *LENGTHS)
    errors = [request["error_kind"] for request in found["requests"]]
    assert len(errors) == 40
    assert errors.count("refused") == 8
    assert errors.count(None) == 32
    metrics = found["metrics"]
    assert metrics["errors"] == {"refused": metrics["num_failed"]}
    assert metrics["goodput"]["share"] == pytest.approx(1 - metrics["num_failed"] / metrics["num_requests"])
    assert any("8 of 40 requests failed" in warning for warning in found["warnings"])
    # A server that refuses was measured all the same.
    assert not any("429" in reason for reason in found["invalid_reasons"])


@pytest.mark.parametrize(
    ("script", "kind"),
    [({"close_after_tokens": 3}, "broken"), ({"error_after_tokens": 3}, "reported"), ({"garbage_after_tokens": 3}, "malformed")],
)
def test_a_run_in_which_every_stream_breaks_is_invalid(measure, script, kind):
    with running_stub(ttft_s=0.01, itl_s=0.002, **script) as stub:
        code, found = measure(stub, "--concurrency", "2", "--num-requests", "10", "--warmup", "0", *LENGTHS)
    assert (code, found["valid"]) == (3, False)
    assert "no request was answered whole" in found["invalid_reasons"][0]
    assert {request["error_kind"] for request in found["requests"]} == {kind}


def test_a_slow_accept_is_part_of_the_latency(measure):
    with running_stub(ttft_s=0.02, itl_s=0.002, accept_delay_s=0.2) as stub:
        _, found = measure(stub, "--concurrency", "2", "--num-requests", "12", *LENGTHS)
    assert found["metrics"]["ttft_s"]["p50"] >= 0.22
    assert found["from_send"]["ttft_s"]["p50"] >= 0.22


def test_repeats_and_a_sweep_are_runs_of_one_document(steady, measure):
    words = ("--sweep", "concurrency=1,4", "--repeats", "2", "--num-requests", "8", "--warmup", "1", "--price-per-hour", "2", *LENGTHS)
    num_before = len(steady.received())
    _, found = measure(steady, *words)
    assert [(run["load"]["concurrency"], run["repeat"]) for run in found["runs"]] == [(1, 0), (1, 1), (4, 0), (4, 1)]
    # Four at once give more, so they stand on top; unless a busy machine has made them, and not the others, invalid.
    is_valid = [run["valid"] for run in found["runs"]]
    assert found["chosen"] == ([0, 1] if all(is_valid[:2]) and not all(is_valid[2:]) else [2, 3])
    assert found["metrics"]["num_requests"] == sum(found["runs"][index]["metrics"]["num_requests"] for index in found["chosen"])
    assert {request["run"] for request in found["requests"]} == {0, 1, 2, 3}
    assert found["cost"]["usd_per_million_output_tokens"] == pytest.approx(2 / 3600 / found["metrics"]["output_tokens_per_s"] * 1e6)
    bodies = [str(request["body"]["prompt"]) for request in steady.received()[num_before:] if len(str(request["body"].get("prompt"))) > 60]
    assert len(bodies) == len(set(bodies)), "a prompt was sent twice: a prefix cache would answer it"


@pytest.mark.parametrize(("route", "api"), [("/v1/chat/completions", "chat"), ("/invocations", "invocations")])
def test_the_route_that_a_server_has_is_found(measure, route, api):
    with running_stub(routes=[route]) as stub:
        _, found = measure(stub, "--num-requests", "4", "--warmup", "0", *LENGTHS)
        assert found["target"]["api"] == api
        assert found["metrics"]["num_failed"] == 0
        # One that is named is not exchanged for another.
        assert main(["throughput", "--url", f"{stub.url}/v1/completions"], {}) == 2


def start(stub: Stub, out: Path, *words: str) -> subprocess.Popen[bytes]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "throughput", "--url", stub.url, "--model", "stub", "--out", str(out), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_requests(stub: Stub, number: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while len(stub.received()) < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_client_starved_of_cpu_says_invalid(tmp_path):
    out = tmp_path / "run.json"
    with running_stub(ttft_s=0.02, itl_s=0.005) as stub:
        process = start(stub, out, "--rate", "20", "--num-requests", "60", "--warmup", "0", *LENGTHS)
        wait_for_requests(stub, 10)
        # What a neighbour that takes the cores does to it, made certain: it runs a quarter of the time.
        deadline = time.monotonic() + DEADLINE_S
        while process.poll() is None:
            assert time.monotonic() < deadline
            workers = _children(process.pid)
            for number, pause_s in ((signal.SIGSTOP, 0.3), (signal.SIGCONT, 0.1)):
                for worker in workers:
                    _signal(worker, number)
                time.sleep(pause_s)
    assert process.returncode == 3
    found = json.loads(out.read_text())
    assert not found["valid"]
    assert any("the client limited the run" in reason for reason in found["invalid_reasons"])
    assert found["verdict"].startswith("INVALID")


def _children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in children.read_text().split()] if children.exists() else []


def _signal(pid: int, number: int) -> None:
    # It may have ended by itself.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    out = tmp_path / "run.json"
    with running_stub(ttft_s=0.02, itl_s=0.005) as stub:
        process = start(stub, out, "--concurrency", "2", "--num-requests", "5000", *LENGTHS)
        wait_for_requests(stub, 40)
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_S)
    assert process.returncode == 130
    found = json.loads(out.read_text())
    assert "interrupted" in found["invalid_reasons"][0]
    assert sum(request["error"] is None for request in found["requests"]) >= 10


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--concurrency", "0"], "--concurrency"),
        (["--sweep", "concurrency=0"], "--sweep"),
        (["--sweep", "batch=1"], "concurrency=1,2,4"),
        (["--find-slo"], "--slo"),
        (["--slo", "ttft=5"], "ttft=500ms"),
        (["--rate", "1", "--stages", "1/s:1s"], "--stages"),
        (["--price-per-hour", "-1"], "--price-per-hour"),
        (["--extra-body", "[]"], "--extra-body"),
        (["--endpoint", "x"], "--endpoint"),
        (["--", "--dtype", "float16"], "--serve"),
    ],
)
def test_wrong_options_are_named_before_anything_is_measured(steady, tmp_path, capsys, words, told):
    before = len(steady.received())
    code = main(["throughput", "--url", steady.url, "--out", str(tmp_path / "run.json"), *words], {})
    assert code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run.json").exists()
    # The target may have been asked what it takes, no more.
    assert len(steady.received()) - before < 10


def test_no_server_is_told_in_one_line(tmp_path, capsys):
    assert main(["throughput", "--url", "http://127.0.0.1:9", "--out", str(tmp_path / "run.json")], {}) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "http://127.0.0.1:9" in line
