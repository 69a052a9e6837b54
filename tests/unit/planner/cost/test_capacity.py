"""What an instance does: as said, as measured by `tokenport bench`, as estimated."""

import json

import numpy as np
import pytest

from serving.errors import PlanError
from serving.planner.cost.capacity import parse_capacity, parse_slo, parse_speed, read_capacity, read_cold_start_s
from serving.planner.cost.outcome import Slo, Speed


def throughput(**more):
    return {
        "schema_version": 1,
        "kind": "throughput",
        "created": "2026-11-20T10:00:00+00:00",
        "valid": True,
        "invalid_reasons": [],
        "chosen": [1],
        "runs": [{"load": {"kind": "closed", "concurrency": 4}}, {"load": {"kind": "closed", "concurrency": 8}}],
        "metrics": {
            "ttft_s": {"mean": 0.3},
            "tpot_s": {"mean": 0.02},
            "mean_concurrency": 7.6,
            "tokens": {"prompt": 51_200},
            "num_requests": 100,
        },
        **more,
    }


@pytest.fixture
def written(tmp_path):
    def write(document):
        path = tmp_path / "result.json"
        path.write_text(json.dumps(document))
        return path

    return write


def test_a_capacity_as_said():
    found = parse_capacity("concurrency=16, ttft=400ms, tpot=25ms")
    assert (found.concurrency, found.speed) == (16, Speed(0.4, 0.025))


def test_limits_as_said():
    assert parse_slo("ttft=2s,e2e=1m", 0.95) == Slo(ttft_s=2.0, e2e_s=60.0, share=0.95)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ttft=1s,tpot=1ms", "--capacity ttft=1s,tpot=1ms: has no concurrency"),
        ("concurrency=0,ttft=1s,tpot=1ms", "--capacity concurrency 0: write a whole number of at least 1"),
        ("concurrency=1,ttft=1,tpot=1ms", "--capacity ttft 1: write a length of time with its unit"),
        ("concurrency=1,ttft=1s,tpo=1ms", "--capacity 'tpo' is unknown; the nearest is 'tpot'"),
        ("16", "--capacity 16: write concurrency="),
        ("ttft=1s,ttft=2s,tpot=1s", "--capacity ttft=1s,ttft=2s,tpot=1s: write concurrency="),
    ],
)
def test_a_malformed_capacity_is_told(text, told):
    with pytest.raises(PlanError) as caught:
        parse_capacity(text)
    assert told in str(caught.value)


def test_the_load_that_a_measurement_chose_is_the_capacity(written):
    found = read_capacity(written(throughput()))
    assert (found.concurrency, found.speed) == (8, Speed(0.3, 0.02))
    assert found.source == "result.json, measured 2026-11-20"
    assert found.assumed == ("prompts take as long as the 512 tokens that result.json was measured with",)


def test_of_an_open_loop_the_mean_concurrency_is_the_capacity(written):
    assert read_capacity(written(throughput(runs=[{"load": {"kind": "open", "rate": 3}}], chosen=[0]))).concurrency == 8


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (throughput(valid=False, invalid_reasons=["the client was too slow"]), "the run is not valid: the client was too slow"),
        (throughput(kind="latency"), "is no result of `tokenport bench throughput`"),
        (throughput(schema_version=2), "of schema_version 1"),
        (throughput(metrics={"ttft_s": {"mean": None}}), "does not tell TTFT, TPOT and concurrency"),
        ([], "is no result of `tokenport bench throughput`"),
    ],
)
def test_a_measurement_that_does_not_tell_is_refused(written, document, told):
    with pytest.raises(PlanError, match="--bench") as caught:
        read_capacity(written(document))
    assert told in str(caught.value)


def test_the_cold_start_of_a_measurement_is_the_time_until_ready(written):
    document = throughput(kind="startup", metrics={"ready_s": {"mean": 42.5}})
    assert read_cold_start_s(written(document)) == 42.5
    with pytest.raises(PlanError, match=r"does not tell metrics\.ready_s\.mean"):
        read_cold_start_s(written(throughput(kind="startup", metrics={})))


def test_an_answer_takes_its_first_token_and_one_step_for_each_further_one():
    speed = parse_speed("--api-speed", "ttft=1s,tpot=100ms")
    assert speed.service_s(np.array([1.0, 11.0])).tolist() == [1.0, 2.0]
