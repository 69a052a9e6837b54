"""The same requests through boto3 and SageMaker's side of the contract, played by the local runtime in front of the stub."""

import socket

import pytest

from benchmarks.client.probe import probe
from benchmarks.client.target import TargetSpec
from benchmarks.measuring.timing import e2e_s, ttft_s
from serving.errors import BenchmarkError
from tests.benchmarks.driving import MODEL, closed, driven, spec_of
from tests.benchmarks.stub import running_stub
from tests.container.runtime_support import runtime


@pytest.fixture(scope="module")
def url():
    with running_stub() as stub, runtime(stub.url) as url:
        yield url


async def test_a_response_stream_has_the_scripts_times_however_it_is_split(url):
    [record] = await driven(closed(max_tokens=10), spec_of(url, "sagemaker-stream", ttft_s=0.4, itl_s=0.05))
    assert (record.error, record.status, record.is_streamed, record.output_tokens) == (None, 200, True, 10)
    assert record.arrival_tokens == [1] * 10
    assert all(arrival - record.sent_s >= 0.4 + number * 0.05 for number, arrival in enumerate(record.arrivals_s))
    assert ttft_s(record) < 2.0


async def test_a_plain_invocation_is_one_arrival_without_a_first_token(url):
    [record] = await driven(closed(max_tokens=10), spec_of(url, "sagemaker", ttft_s=0.2, itl_s=0.02))
    assert (record.error, record.is_streamed, len(record.arrivals_s), record.output_tokens) == (None, False, 1, 10)
    assert ttft_s(record) is None
    assert e2e_s(record) >= 0.2 + 9 * 0.02


async def test_messages_go_to_endpoints_too(url):
    spec = TargetSpec("sagemaker-stream", url, endpoint_name="chat", chat_bodies=True)
    [record] = await driven(closed(), spec)
    assert (record.error, len(record.arrivals_s)) == (None, 8)


async def test_many_at_once_are_not_queued_for_connections(url):
    records = await driven(closed(16, 16, max_tokens=2), spec_of(url, "sagemaker-stream", ttft_s=1.0))
    assert all(record.is_whole for record in records)
    assert max(record.sent_s for record in records) < min(record.arrivals_s[0] for record in records)


async def test_the_models_refusal_has_its_own_status(url):
    [record] = await driven(closed(), spec_of(url, "sagemaker-stream", status=429))
    assert (record.error_kind, record.status) == ("refused", 429)
    assert "ModelError" in record.error


async def test_an_endpoint_that_is_not_there_is_refused(url):
    [record] = await driven(closed(), TargetSpec("sagemaker", url, endpoint_name="other"))
    assert (record.error_kind, record.status) == ("refused", 400)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [({"close_after_tokens": 2}, "reported"), ({"error_after_tokens": 2}, "reported"), ({"garbage_after_tokens": 2}, "malformed")],
)
async def test_streams_that_go_wrong(url, behaviour, kind):
    [record] = await driven(closed(), spec_of(url, "sagemaker-stream", itl_s=0.05, **behaviour))
    assert (record.error_kind, len(record.arrivals_s), record.is_whole) == (kind, 2, False), record


async def test_a_stream_that_hangs_runs_into_its_deadline(url):
    [record] = await driven(closed(request_timeout_s=0.6), spec_of(url, "sagemaker-stream", hang_after_tokens=2))
    assert (record.error_kind, len(record.arrivals_s)) == ("timeout", 2)
    assert record.ended_s - record.scheduled_s < 2.0


async def test_nothing_there_is_a_failed_connection():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        spec = spec_of(f"http://127.0.0.1:{unused.getsockname()[1]}", "sagemaker")
        [record] = await driven(closed(), spec)
        assert record.error_kind == "connection"
        with pytest.raises(BenchmarkError, match="does not answer"):
            await probe(spec)


async def test_the_probe_finds_what_an_endpoint_refuses(url):
    found = await probe(spec_of(url, "sagemaker-stream", refused_fields=["stream_options.continuous_usage_stats"]))
    assert (found.accepts_continuous_usage, found.accepts_ignore_eos, found.model) == (False, True, None)


async def test_an_endpoint_needs_a_name(url):
    with pytest.raises(BenchmarkError, match="--endpoint"):
        await driven(closed(), TargetSpec("sagemaker", url), MODEL)
