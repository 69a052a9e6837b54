"""Speed and cold start as `tokenport bench` measured them."""

import json

import pytest

from serving.errors import PlanError
from serving.planner.cost.bench_results import read_capacity, read_cold_start
from serving.planner.cost.outcome import Speed

METRICS = {
    "ttft_s": {"mean": 0.3},
    "tpot_s": {"mean": 0.02},
    "mean_concurrency": 7.6,
    "tokens": {"prompt": 51_200},
    "num_requests": 100,
}


def throughput(**more):
    return {
        "schema_version": 1,
        "kind": "throughput",
        "created": "2026-11-20T10:00:00+00:00",
        "valid": True,
        "invalid_reasons": [],
        "machine": {"cpu": "a processor", "gpus": []},
        "chosen": [1],
        "runs": [{"load": {"kind": "closed", "concurrency": 4}}, {"load": {"kind": "closed", "concurrency": 8}}],
        "metrics": METRICS,
        **more,
    }


def changed(**metrics):
    return throughput(metrics={**METRICS, **metrics})


@pytest.fixture
def written(tmp_path):
    def write(document):
        path = tmp_path / "result.json"
        path.write_text(json.dumps(document))
        return path

    return write


def test_the_load_that_a_measurement_chose_is_the_capacity(written):
    found = read_capacity(written(throughput()))
    assert (found.concurrency, found.speed) == (8, Speed(0.3, 0.02))
    assert found.source == "result.json, measured 2026-11-20 on a processor"
    assert found.assumed == ("prompts take as long as the 512 tokens that result.json was measured with",)


def test_of_an_open_loop_the_mean_concurrency_is_the_capacity(written):
    assert read_capacity(written(throughput(runs=[{"load": {"kind": "open", "rate": 3}}], chosen=[0]))).concurrency == 8


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (throughput(valid=False, invalid_reasons=["the client was too slow"], metrics={}), "the run is not valid: the client was too slow"),
        (throughput(kind="latency"), "is a result of `tokenport bench latency` of schema_version 1, not of `tokenport bench throughput`"),
        (throughput(schema_version=2), "of schema_version 2, not of `tokenport bench throughput` of schema_version 1"),
        (changed(ttft_s={"mean": None}), "Expected `float`, got `null` - at `$.metrics.ttft_s.mean`"),
        (changed(tpot_s={"mean": -1}), "Expected `float` >= 0.0 - at `$.metrics.tpot_s.mean`"),
        (changed(num_requests=0), "at `$.metrics.num_requests`"),
        (throughput(runs=[{"load": {}}], chosen=[1]), "`chosen` names run 1, and there are 1"),
        (
            throughput(runs=[{"load": {"rate": 3}}], chosen=[0], metrics={**METRICS, "mean_concurrency": 0.3}),
            "less than one request at once",
        ),
        ([], "does not tell TTFT, TPOT and concurrency of streamed answers"),
    ],
)
def test_a_measurement_that_does_not_tell_is_refused(written, document, told):
    with pytest.raises(PlanError, match="--bench") as caught:
        read_capacity(written(document))
    assert told in str(caught.value)


def test_the_cold_start_of_a_measurement_is_the_time_until_ready(written):
    document = throughput(kind="startup", metrics={"ready_s": {"mean": 42.5}})
    assert read_cold_start(written(document)) == (42.5, "result.json, measured 2026-11-20 on a processor")


@pytest.mark.parametrize("metrics", [{}, {"ready_s": {"mean": -5}}, {"ready_s": {"mean": "5"}}, {"ready_s": {"mean": True}}, []])
def test_a_cold_start_that_is_no_time_is_refused(written, metrics):
    with pytest.raises(PlanError, match=r"--startup .*result\.json: does not tell .*metrics"):
        read_cold_start(written(throughput(kind="startup", metrics=metrics)))
