"""Results of one's own narrow the estimate, and what is none is refused."""

import json

import pytest

from serving.errors import PlanError
from serving.planner.instances import load_hardware
from serving.planner.speed.calibration import calibrated, read_measured
from serving.planner.speed.efficiency import published_efficiency
from serving.planner.speed.speed import Flow, ServedModel, estimate_speed
from serving.planner.speed.work_per_token import WorkPerToken

HARDWARE = load_hardware()
L4 = HARDWARE.gpus["L4"]
BANDWIDTH_SHARE, COMPUTE_SHARE = 0.8, 0.5
MODEL = ServedModel(WorkPerToken(7 * 10**9, 5 * 10**8, 524288), 32, 8192, 15e9, 131072, "float16", L4, 1, None)


def result(**changes):
    """As `tokenport bench throughput` writes it, without what is not read: one L4, 0.25 s to the first token, 2 requests a second."""
    return {
        "schema_version": 1,
        "kind": "throughput",
        "valid": True,
        "invalid_reasons": [],
        "machine": {"cpu": "a processor", "gpus": [{"name": "NVIDIA L4", "memory_bytes": 24e9, "driver": "580"}]},
        "ledger": {"devices": [{"device": "cuda:0", "total_bytes": 24e9}]},
        "metrics": {"requests_per_s": 2.0, "ttft_s": {"p50": 0.25}},
        "efficiency": {
            "precision": "bfloat16",
            "bytes_per_s": BANDWIDTH_SHARE * 300e9,
            "prefill_flops_per_s": COMPUTE_SHARE * 121e12 * 0.25 * 2.0,
            "reasons": {},
        },
        **changes,
    }


def write(tmp_path, document, name="result.json"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def measured(tmp_path, **changes):
    return read_measured(write(tmp_path, result(**changes)), HARDWARE.gpus)


def test_a_result_tells_the_shares_that_were_reached(tmp_path):
    found = measured(tmp_path)
    assert (found.gpu, found.precision) == ("L4", "float16")
    assert found.bandwidth_share == pytest.approx(BANDWIDTH_SHARE)
    assert found.compute_share == pytest.approx(COMPUTE_SHARE)


def test_it_narrows_the_interval_around_what_was_measured_and_says_on_what(tmp_path):
    before = published_efficiency()
    after = calibrated(before, [measured(tmp_path)], L4, "float16")
    for name, share in (("bandwidth_share", BANDWIDTH_SHARE), ("compute_share", COMPUTE_SHARE)):
        narrow, wide = getattr(after, name), getattr(before, name)
        assert narrow.estimate == pytest.approx(share)
        assert narrow.high - narrow.low < (wide.high - wide.low) / 2
    assert "result.json" in after.basis
    assert after.basis == "the bandwidth and the rate measured on L4 in float16: result.json"

    wide, narrow = (estimate_speed(MODEL, Flow(1000, 200, 8), one).tpot_s for one in (before, after))
    assert (narrow.high - narrow.low) / narrow.estimate < (wide.high - wide.low) / wide.estimate / 2


def test_what_a_result_does_not_tell_stays_published_and_is_said_to(tmp_path):
    before = published_efficiency()
    after = calibrated(before, [measured(tmp_path, metrics={"requests_per_s": 2.0, "ttft_s": None})], L4, "float16")
    assert after.compute_share == before.compute_share
    assert after.basis.startswith("the bandwidth measured on L4 in float16: result.json; the rest on published measurements")


def test_what_was_measured_is_estimated_again(tmp_path):
    after = calibrated(published_efficiency(), [measured(tmp_path)], L4, "float16")
    found = estimate_speed(MODEL, Flow(1000, 200, 1), after)
    assert found.tpot_s.estimate == pytest.approx((15e9 + 131072 * 1100) / (BANDWIDTH_SHARE * 300e9))
    prefill_s = MODEL.work.prefill_flops(1000) / (COMPUTE_SHARE * 121e12)
    assert found.ttft_s.estimate == pytest.approx(prefill_s + found.tpot_s.estimate)


def test_it_says_nothing_of_another_gpu_or_precision(tmp_path):
    before, found = published_efficiency(), [measured(tmp_path)]
    assert calibrated(before, found, HARDWARE.gpus["L40S"], "float16") == before
    assert calibrated(before, found, L4, "int8") == before


def test_of_several_results_the_best_is_the_estimate_and_the_worst_an_end(tmp_path):
    slow = {**result()["efficiency"], "bytes_per_s": 0.6 * 300e9}
    both = [measured(tmp_path), measured(tmp_path, efficiency=slow)]
    share = calibrated(published_efficiency(), both, L4, "float16").bandwidth_share
    assert share.estimate == pytest.approx(0.8)
    assert share.low == pytest.approx(0.6 / 1.1)


def test_a_measured_rate_of_8_bits_has_their_gain_in_it(tmp_path):
    in_8 = {**result()["efficiency"], "precision": "int8", "prefill_flops_per_s": 0.4 * 242e12 * 0.25 * 2.0}
    after = calibrated(published_efficiency(), [measured(tmp_path, efficiency=in_8)], L4, "int8")
    assert after.compute_share.estimate == pytest.approx(0.4)
    assert after.eight_bit_gain.estimate == after.eight_bit_gain.low == 1


@pytest.mark.parametrize(
    ("device", "gpu"),
    [("NVIDIA A100-SXM4-80GB", "A100-80GB"), ("NVIDIA A100-SXM4-40GB", "A100-40GB"), ("NVIDIA H100 80GB HBM3", "H100"), ("Tesla T4", "T4")],
)
def test_a_device_is_known_by_the_words_of_its_name(tmp_path, device, gpu):
    assert measured(tmp_path, machine={"gpus": [{"name": device}]}).gpu == gpu


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "startup"}, "is a result of `tokenport bench startup`, not of `tokenport bench throughput`"),
        ({"schema_version": 2}, "has schema_version 2, this version reads 1"),
        ({"valid": False, "invalid_reasons": ["the client was busy"]}, "invalid .the client was busy."),
        ({"machine": {"cpu": "a processor", "gpus": []}}, "measured on a processor in float16, which is not in the table"),
        ({"machine": {"gpus": [{"name": "NVIDIA GB201"}]}}, "measured on NVIDIA GB201"),
        ({"efficiency": None}, "does not say how much of the machine was used"),
        ({"machine": {"gpus": [{"name": "NVIDIA H100 PCIe"}]}}, "measured on NVIDIA H100 PCIe"),
        ({"machine": {"gpus": [{"name": "NVIDIA L4"}, {"name": "Tesla T4"}]}}, "measured on NVIDIA L4 and Tesla T4"),
        ({"efficiency": {"precision": None, "reasons": {"mbu": "no ledger"}}}, "no ledger"),
        ({"efficiency": {"precision": "int8", "reasons": {"mbu": "no answer was decoding"}}}, "no answer was decoding"),
        ({"efficiency": ["a list"]}, r"Expected `object . null`, got `array` - at `\$\.efficiency`"),
        ({"machine": {"gpus": "an L4"}}, r"at `\$\.machine\.gpus`"),
        ({"metrics": {"ttft_s": 3}}, r"at `\$\.metrics\.ttft_s`"),
    ],
)
def test_what_cannot_calibrate_says_why_with_the_files_name(tmp_path, changes, words):
    with pytest.raises(PlanError, match=rf"--calibrate .*result\.json: .*{words}"):
        measured(tmp_path, **changes)


@pytest.mark.parametrize("text", ["no json", "[]", "{}"])
def test_a_file_that_is_no_result_is_refused(tmp_path, text):
    with pytest.raises(PlanError, match=r"--calibrate .*result\.json: is no result of `tokenport bench throughput --out FILE`"):
        read_measured(write(tmp_path, text), HARDWARE.gpus)
