"""One way to serve, with any number of requests at once."""

from dataclasses import replace
from itertools import pairwise

import pytest

from serving.errors import PlanError
from serving.planner.instances import find_instance
from serving.planner.memory.fit import best_plan
from serving.planner.model import model_of
from serving.planner.plan import PlanRequest
from serving.planner.ranking.operation import NO_PRICE, Estimator, Target
from serving.planner.speed.calibration import Measured
from serving.planner.speed.efficiency import published_efficiency
from serving.planner.speed.speed import Flow
from tests.unit.planner.known_models import CONFIGS

TARGET = Target(Flow(1000, 200, 5))
L40S = find_instance("ml.g6e.xlarge")


def served(config, instance=L40S, num_replicas=1, max_concurrency=100):
    model = model_of("a-model", config)
    plan = best_plan(model, PlanRequest(context=4096, tensor_parallel_size=1), instance.gpu, 1)
    return Estimator(model, published_efficiency()).service(plan, instance, num_replicas, max_concurrency)


@pytest.fixture(scope="module")
def service():
    return served(CONFIGS["Llama-3.1-8B"])


def test_it_is_told_at_each_power_of_two_that_is_held_and_at_what_was_asked_for(service):
    def told(most, asked):
        operations = replace(service, max_concurrency=most).by_concurrency(Target(Flow(1000, 200, asked)))
        return [one.concurrency for one in operations]

    assert told(16, 5) == [1, 2, 4, 5, 8, 16]
    assert told(17, 4) == [1, 2, 4, 8, 16]
    assert told(10, 32) == [1, 2, 4, 8]
    assert told(0, 1) == []


def test_more_at_once_are_slower_each_faster_together_and_cheaper(service):
    operations = service.by_concurrency(TARGET)
    for before, after in pairwise(operations):
        assert after.speed.ttft_s.estimate > before.speed.ttft_s.estimate
        assert after.speed.tpot_s.estimate > before.speed.tpot_s.estimate
        assert after.output_tokens_per_s_per_request.estimate < before.output_tokens_per_s_per_request.estimate
        assert after.output_tokens_per_s.estimate > before.output_tokens_per_s.estimate
        assert after.usd_per_million_output_tokens.estimate < before.usd_per_million_output_tokens.estimate


def test_the_cost_is_an_hours_price_by_an_hours_tokens(service):
    found = service.at(8, TARGET)
    assert found.output_tokens_per_s.estimate == pytest.approx(8 * found.output_tokens_per_s_per_request.estimate)
    a_million = found.usd_per_million_output_tokens
    assert a_million.estimate == pytest.approx(L40S.price_per_hour / (3600 * found.output_tokens_per_s.estimate) * 1e6)
    assert a_million.low == pytest.approx(L40S.price_per_hour / (3600 * found.output_tokens_per_s.high) * 1e6)


def test_one_request_keeps_one_of_four_replicas_busy(service):
    four = replace(service, num_replicas=4)
    assert four.at(1, TARGET) == service.at(1, TARGET)
    assert four.at(4, TARGET).output_tokens_per_s.estimate == pytest.approx(4 * service.at(1, TARGET).output_tokens_per_s.estimate)
    assert four.at(5, TARGET).speed == service.at(2, TARGET).speed


def test_each_says_whether_it_keeps_the_target(service):
    limit = service.at(8, TARGET).speed.tpot_s.estimate
    found = {one.concurrency: one.reasons for one in service.by_concurrency(replace(TARGET, tpot_s=limit))}
    assert found[1] == found[5] == found[8] == ()
    assert "TPOT" in found[16][0]
    dear = service.at(1, replace(TARGET, usd_per_hour=1))
    assert dear.reasons == ("2.61 USD an hour, over the budget of 1",)


def test_without_a_price_there_is_no_cost_and_no_budget_is_kept(service):
    unpriced = replace(service, instance=replace(L40S, price_per_hour=None))
    assert unpriced.at(1, TARGET).usd_per_million_output_tokens is None
    assert unpriced.at(1, TARGET).reasons == ()
    assert unpriced.at(1, replace(TARGET, usd_per_hour=100)).reasons == (NO_PRICE,)


def test_how_far_it_is_over_is_told_of_what_is_furthest(service):
    found = service.at(1, TARGET)
    ttft_s, tpot_s = found.speed.ttft_s.estimate, found.speed.tpot_s.estimate
    assert found.excess(replace(TARGET, ttft_s=ttft_s / 2, tpot_s=tpot_s / 3)) == pytest.approx(3)
    assert found.excess(replace(TARGET, ttft_s=ttft_s * 2)) == 1


def test_of_experts_in_4_bits_a_step_reads_the_chosen_beside_all_else_in_16():
    config = CONFIGS["gpt-oss-20b"] | {"quantization_config": {"quant_method": "mxfp4"}}
    replica = served(config).replica
    experts = 24 * 32 * 3 * 2880 * 2880
    assert replica.experts_bytes == pytest.approx(experts * 4.25 / 8, rel=0.01)
    attention = 24 * (2880 * (64 + 2 * 8) * 64 + 64 * 64 * 2880)
    assert replica.weights_read_bytes == pytest.approx(2 * (attention + 201088 * 2880), rel=0.03)


def test_a_gpu_whose_rate_is_not_known_is_named():
    gpu = replace(L40S.gpu, name="my GPU", flops_per_s={})
    with pytest.raises(PlanError, match=r"my GPU: its rate in 16 bits is not known; give it as tflops\.float16"):
        served(CONFIGS["Llama-3.1-8B"], replace(L40S, gpu=gpu))


def test_a_measurement_of_another_machine_says_that_it_has_no_effect():
    model = model_of("a-model", CONFIGS["Llama-3.2-1B"])
    plan = best_plan(model, PlanRequest(context=4096), L40S.gpu, 1)
    ours, other = (Measured(f"{gpu}.json", gpu, "float16", 0.5, None) for gpu in ("L40S", "H100"))
    estimator = Estimator(model, published_efficiency(), [ours, other])
    assert "L40S.json" in estimator.service(plan, L40S, 1, 1).efficiency.basis
    assert estimator.without_effect == ["--calibrate H100.json: without effect, since nothing here computes in float16 on H100"]
