"""What is read of a server and of GPUs while load is driven."""

import time

import httpx
import pytest

from benchmarks.machine.nvml import GpuReading
from benchmarks.machine.telemetry import Telemetry, parse_metrics, peaks

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {strange} name"} 3.0
vllm:num_requests_running{engine="1",model_name="a {strange} name"} 2.0
vllm:num_requests_waiting{engine="0"} 7.0 1700000000000
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:num_preemptions_total 4
vllm:num_preemptions_created{engine="0"} 1.7e9
"""


class FakeGpus:
    """One card whose power rises by a watt a reading."""

    def __init__(self):
        self.num_read = 0
        self.is_closed = False

    def read(self):
        self.num_read += 1
        return [GpuReading(index=0, power_w=float(self.num_read), throttle_reasons=("power cap",))]

    def describe(self):
        return []

    def __enter__(self):
        return self

    def __exit__(self, *about):
        self.is_closed = True


def until(condition, deadline_s=20.0):
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_wanted_figures_are_found_and_nothing_that_is_named_alike():
    assert parse_metrics(METRICS) == {"running": 5.0, "waiting": 7.0, "kv_cache_usage": 0.5, "preemptions": 4.0}
    assert parse_metrics("") == {}


def test_rows_on_the_runs_clock():
    with Telemetry(None, interval_s=0.01, gpus=FakeGpus(), get_text=lambda: METRICS) as telemetry:
        until(lambda: len(telemetry.rows()) >= 3)
        telemetry.origin = time.monotonic()
        num_before = len(telemetry.rows())
        until(lambda: len(telemetry.rows()) >= num_before + 2)
    rows = telemetry.rows()
    times = [row["at_s"] for row in rows]
    assert times == sorted(times)
    assert times[0] < 0 < times[-1]
    assert rows[0]["running"] == 5.0
    assert rows[1]["gpus"][0]["power_w"] == 2.0
    assert rows[1]["gpus"][0]["throttle_reasons"] == ("power cap",)


def test_the_last_row_is_taken_after_the_run():
    with Telemetry(None, interval_s=60, gpus=FakeGpus(), get_text=lambda: METRICS) as telemetry:
        until(lambda: telemetry.rows())
        telemetry.origin = time.monotonic()
    assert len(telemetry.rows()) == 2
    assert telemetry.rows()[-1]["at_s"] >= 0


def test_gpus_of_the_caller_stay_his():
    gpus = FakeGpus()
    with Telemetry(None, gpus=gpus):
        pass
    assert not gpus.is_closed


def test_a_server_that_does_not_answer_leaves_an_empty_row_and_is_counted():
    def fails():
        raise httpx.ReadTimeout("too late")

    with Telemetry(None, interval_s=0.01, gpus=FakeGpus(), get_text=fails) as telemetry:
        until(lambda: len(telemetry.rows()) >= 2)
    assert telemetry.num_unanswered == len(telemetry.rows())
    assert telemetry.rows()[0]["running"] is None
    assert peaks(telemetry.rows())["running"] is None


def test_where_there_is_no_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr("benchmarks.machine.telemetry.open_gpus", lambda: (None, "none here"))
    with Telemetry(None, get_text=lambda: METRICS) as telemetry:
        until(lambda: telemetry.rows())
    assert "gpus" not in telemetry.rows()[0]
    assert telemetry.reasons == ["GPUs are not watched: none here"]


def test_peaks_are_the_largest_of_each_column():
    rows = [{"running": 1.0, "waiting": None}, {"running": 4.0, "waiting": 2.0}, {"running": 3.0, "waiting": 0.0}]
    found = peaks(rows)
    assert (found["running"], found["waiting"], found["preemptions"]) == (4.0, 2.0, None)


@pytest.mark.parametrize("text", ["vllm:num_requests_running{", 'vllm:num_requests_running{a="b"}', "vllm:num_requests_running"])
def test_a_line_cut_short_is_no_figure(text):
    assert parse_metrics(text) == {}
