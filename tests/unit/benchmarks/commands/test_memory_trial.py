"""What is concluded from what a server ran, told by a made-up server without a network."""

import pytest

from benchmarks.commands import memory_trial
from benchmarks.commands.memory_trial import Trial
from benchmarks.measuring.record import Record

TRIAL = Trial("http://nowhere", max_model_len=256, max_sequences=64)


class Server:
    """Runs at most `places` at once, refuses those beyond `places + queue`; from `rounds_needed` rounds on answers are seen together."""

    def __init__(self, places, queue=10**6, usage=0.5, preemptions=0.0, rounds_needed=1):
        self.places, self.queue, self.usage, self.preemptions, self.rounds_needed = places, queue, usage, preemptions, rounds_needed
        self.plans = []
        self.rows_of_last = []

    def drive(self, plan):
        self.plans.append(plan)
        number, rounds = plan.concurrency, len(plan.requests) // plan.concurrency
        seen = number if rounds >= self.rounds_needed else number // 2
        row = {"running": float(min(seen, self.places)), "waiting": float(max(0, seen - self.places)), "kv_cache_usage": self.usage}
        self.rows_of_last = [{**row, "preemptions": 0.0}, row | {"preemptions": self.preemptions}, row | {"preemptions": self.preemptions}]
        return [self.answer(request, place) for place, request in enumerate(plan.requests)]

    def answer(self, request, place):
        record = Record(request.number, 0.0, request.max_tokens, sent_s=0.0, ended_s=2.0)
        if place >= self.places + self.queue:
            record.error, record.error_kind = "HTTP 429: the queue is full", "refused"
        else:
            record.prompt_tokens, record.output_tokens = len(request.prompt), request.max_tokens
        return record


@pytest.fixture
def most(monkeypatch):
    def find(server, **changes):
        class Telemetry:
            def __init__(self, *_, **__):
                pass

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def rows(self):
                return server.rows_of_last

        monkeypatch.setattr(memory_trial, "Telemetry", Telemetry)
        trial = Trial(**{**{name: getattr(TRIAL, name) for name in ("url", "max_model_len", "max_sequences")}, **changes})
        return memory_trial.most_sequences(trial, 32, server.drive, lambda _: None)

    return find


def test_twice_as_many_until_some_wait(most):
    server = Server(places=20)
    found = most(server)
    assert found["num_running"] == 20
    assert [plan.concurrency for plan in server.plans] == [8, 16, 32]
    assert "max_num_seqs" in found["limited_by"]


@pytest.mark.parametrize("server", [Server(20, usage=0.99), Server(20, preemptions=3.0)])
def test_a_full_cache_is_told_from_too_few_places(most, server):
    assert "KV cache: it was full" in most(server)["limited_by"]


def test_a_refusal_is_a_limit_with_its_reason(most):
    found = most(Server(places=20, queue=4))
    assert found["num_running"] == 20
    assert "refused 8 of them: HTTP 429: the queue is full" in found["limited_by"]


def test_what_was_not_tried_is_not_claimed(most):
    found = most(Server(places=1000), max_sequences=20)
    assert found["num_running"] == 20
    assert "--max-sequences" in found["limited_by"]


def test_answers_that_end_too_soon_are_sent_again_and_again(most):
    server = Server(places=20, rounds_needed=2)
    found = most(server)
    assert found["num_running"] == 20
    assert "max_num_seqs" in found["limited_by"]
    assert [len(plan.requests) // plan.concurrency for plan in server.plans][:2] == [1, 4]


def test_if_even_that_is_too_short_it_says_so(most):
    found = most(Server(places=1000, rounds_needed=100))
    assert "--sequence-lens" in found["limited_by"]
    assert found["num_running"] == 4


def test_prompts_share_no_beginning_and_have_the_length_asked_for(most):
    server = Server(places=20)
    most(server)
    prompts = [request.prompt[:4] for plan in server.plans for request in plan.requests]
    assert len(set(prompts)) == len(prompts)
    assert {len(request.prompt) + request.max_tokens for plan in server.plans for request in plan.requests} == {32}


def test_the_longest_context_is_what_the_server_counted():
    found = memory_trial.longest_context(TRIAL, Server(places=1).drive)
    assert found == {"tokens": 256, "seconds": 2.0, "reason": None}


def test_a_context_that_is_refused_is_none_with_the_reason():
    found = memory_trial.longest_context(TRIAL, Server(places=0, queue=0).drive)
    assert found["tokens"] is None
    assert found["reason"] == "HTTP 429: the queue is full"


def test_sizes_are_of_all_devices():
    device = {
        **dict.fromkeys(
            ("weights_bytes", "kv_cache_bytes", "activation_peak_bytes", "cuda_graph_bytes", "non_torch_bytes", "free_bytes"), 5
        ),
        "kv_cache_tokens": 100,
        "kv_cache_sequences": 2.0,
    }
    found = memory_trial.sizes({"devices": [device, device]})
    assert (found["weights_bytes"], found["kv_cache_tokens"]) == (10, 100)
    assert memory_trial.sizes(None)["weights_bytes"] is None
