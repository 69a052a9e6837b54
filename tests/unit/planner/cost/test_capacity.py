"""How much an instance does, how fast an API is and how fast answers must be, as they are written."""

import numpy as np
import pytest

from serving.errors import PlanError
from serving.planner.cost.capacity import parse_capacity, parse_slo, parse_speed
from serving.planner.cost.outcome import Slo, Speed


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


def test_an_answer_takes_its_first_token_and_one_step_for_each_further_one():
    speed = parse_speed("--api-speed", "ttft=1s,tpot=100ms")
    assert speed.service_s(np.array([1.0, 11.0])).tolist() == [1.0, 2.0]
