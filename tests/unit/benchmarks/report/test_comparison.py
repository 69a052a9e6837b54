"""Differences: those that are there are found, those that are not are called noise, and what cannot be compared is said."""

import numpy as np
import pytest

from benchmarks.report.charts import latency_by_length
from benchmarks.report.comparison import Side, compare
from benchmarks.report.measured import loads_of
from benchmarks.report.uncertainty import (
    BLOCKS,
    PAIRS,
    REPEATS,
    REQUESTS,
    Resampled,
    num_blocks,
    over_pairs,
    over_repeats,
    over_requests,
)
from serving.errors import BenchmarkError


def against(a, b, load=None):
    """Figure -> its difference, of the only load or the one named."""
    loads = compare(side(a, "A"), side(b, "B")).loads
    return {one.name: one for one in (loads[load] if load else next(iter(loads.values())))}


def side(documents, name):
    return Side(name, documents if isinstance(documents, list) else [documents])


def test_two_runs_of_the_same_are_noise(make_document):
    """Of 22 figures about one may differ by chance; the rates and means of these seeds do not."""
    differences = against(make_document(1, num_requests=600), make_document(2, num_requests=600))
    assert [one.name for one in differences.values() if one.verdict in ("better", "worse")] in ([], ["tpot_s.p99"])
    assert {differences[name].verdict for name in ("output_tokens_per_s", "ttft_s.mean", "tpot_s.mean", "e2e_s.p99", "failed_share")} == {
        "noise"
    }


def test_intervals_hold_the_truth_nineteen_times_in_twenty():
    """Of the difference of two means and two medians, over 100 pairs of runs without any difference: as many alarms as promised."""
    generator = np.random.default_rng(7)
    alarms = {"mean": 0, "p50": 0}
    for number in range(100):
        drawn = []
        for one in range(2):
            samples = generator.lognormal(0, 0.5, 150)
            drawn.append(Resampled([[value] for value in samples], 2 * number + one).figures(list(alarms)))
        for name in alarms:
            alarms[name] += not over_requests(drawn[0][name], drawn[1][name], 1.0, 1.0).is_noise
    assert 1 <= alarms["mean"] <= 12
    assert 1 <= alarms["p50"] <= 12


def test_gaps_of_a_request_are_drawn_together():
    """Requests with a pace of their own: taken one by one their gaps would promise a mean much better known than it is."""
    generator = np.random.default_rng(3)
    paces = generator.lognormal(0, 0.3, 400)
    together = Resampled([[pace] * 20 for pace in paces], 1).figures(["mean"])["mean"]
    alone = Resampled([[gap] for gap in generator.permutation(np.repeat(paces, 20))], 1).figures(["mean"])["mean"]
    assert together.std() == pytest.approx(float(np.std(paces, ddof=1)) / 20, rel=0.25)
    assert alone.std() < 0.5 * together.std()


def test_a_resampled_percentile_is_numpys():
    """All weights one: the resample is the sample."""
    samples = np.random.default_rng(5).lognormal(0, 1, 101)
    resampled = Resampled([list(samples)], 1).figures(["mean", "p50", "p90", "p99"])
    assert resampled["mean"][0] == pytest.approx(samples.mean())
    for percentile in (50, 90, 99):
        assert resampled[f"p{percentile}"][0] == pytest.approx(np.percentile(samples, percentile))


def test_neighbours_in_time_are_drawn_together():
    """A run with slow and fast stretches knows its mean less well than its requests one by one say."""
    slow_and_fast = np.repeat(np.random.default_rng(1).lognormal(0, 0.3, 50), 20)
    in_order = Resampled([[value] for value in slow_and_fast], 1).figures(["mean"])["mean"].std()
    shuffled = Resampled([[value] for value in np.random.default_rng(2).permutation(slow_and_fast)], 1).figures(["mean"])["mean"].std()
    assert in_order > 1.8 * shuffled


def test_a_slower_token_is_found_where_it_is_and_nowhere_else(make_document):
    a = make_document(1, num_requests=300)
    differences = against(a, make_document(3, num_requests=300, tpot_s=0.0105))
    assert differences["tpot_s.mean"].verdict == "worse"
    spread = differences["tpot_s.mean"].spread
    assert spread.relative == pytest.approx(0.05, abs=0.01)
    assert 0.03 < spread.relative_low < spread.relative < spread.relative_high < 0.07
    assert spread.method == REQUESTS
    assert differences["output_tokens_per_s"].verdict == "worse"
    assert differences["output_tokens_per_s"].spread.relative == pytest.approx(-0.036, abs=0.01)
    assert differences["output_tokens_per_s"].spread.method.startswith(BLOCKS)
    assert differences["ttft_s.mean"].verdict == "noise"
    assert against(a, make_document(3, num_requests=300, tpot_s=0.0095))["tpot_s.mean"].verdict == "better"


def test_failed_requests_and_goodput_count(make_document):
    differences = against(make_document(1, num_requests=300), make_document(2, num_requests=300, num_failed=100))
    assert differences["failed_share"].verdict == "worse"
    assert differences["failed_share"].b == pytest.approx(100 / 296, abs=0.01)
    assert differences["goodput.share"].verdict == "worse"
    assert differences["goodput.requests_per_s"].verdict == "worse"


def test_repeats_stand_over_requests_where_there_are_three(make_document):
    """Runs that differ from each other by a tenth: within a run the difference looks certain, over the runs it is not."""
    a = make_document(11, points=((4, 3),), spread=0.1, num_requests=150)
    b = make_document(12, points=((4, 3),), spread=0.1, num_requests=150)
    assert REPEATS in against(a, b)["tpot_s.mean"].spread.method
    assert against(a, b)["tpot_s.mean"].verdict == "noise"
    one_a, one_b = (make_document(seed, spread=0.1, num_requests=150) for seed in (11, 12))
    assert against(one_a, one_b)["tpot_s.mean"].verdict in ("better", "worse")


def test_rounds_measured_in_turn_see_through_a_drift(make_document):
    """The machine slows from round to round by more than the sides differ."""
    a = [make_document(round_, tpot_s=0.01 * (1 + 0.1 * round_), num_requests=150) for round_ in range(1, 5)]
    b = [make_document(round_ + 10, tpot_s=0.0104 * (1 + 0.1 * round_), num_requests=150) for round_ in range(1, 5)]
    paired = against(a, b)["tpot_s.mean"]
    assert paired.verdict == "worse"
    assert paired.spread.method == f"{PAIRS} (4 rounds)"
    means = [[document["metrics"]["tpot_s"]["mean"] for document in documents] for documents in (a, b)]
    assert over_repeats(*means).is_noise
    assert not over_pairs(*means).is_noise


def test_the_t_interval_of_pairs_is_the_textbooks():
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(2) 4.3027."""
    spread = over_pairs([10.0, 20.0, 30.0], [11.0, 22.0, 33.0])
    assert (spread.low, spread.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
    assert spread.relative == pytest.approx(0.1)
    assert over_pairs([1.0], [2.0]) is None


def test_welchs_interval_is_the_textbooks():
    """Equal variances and numbers: Student's two-sample t with 4 degrees of freedom, 2.7764."""
    spread = over_repeats([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    assert spread.high - 1 == pytest.approx(2.776445 * (2 / 3) ** 0.5, abs=1e-5)
    assert spread.is_noise
    assert over_repeats([1.0, 2.0], [1.0, 2.0, 3.0]) is None


@pytest.mark.parametrize(("window_s", "answer_s", "num"), [(100.0, 1.0, 20), (100.0, 20.0, 5), (10.0, 4.0, 2), (10.0, 0.0, 0)])
def test_blocks_are_as_long_as_an_answer(window_s, answer_s, num):
    assert num_blocks(window_s, answer_s) == num


def test_too_few_samples_are_unclear_and_not_noise(make_document):
    few = against(make_document(1, num_requests=60), make_document(2, num_requests=60))
    assert (few["ttft_s.p99"].verdict, few["ttft_s.p99"].a) == ("unclear", None)
    more = against(make_document(1, num_requests=300), make_document(2, num_requests=300))
    assert more["ttft_s.p99"].verdict == "unclear"
    assert "samples are too few" in more["ttft_s.p99"].reason
    assert more["ttft_s.p90"].spread is not None


def test_loads_are_compared_each_with_its_own(make_document):
    a = make_document(1, points=((1, 1), (4, 1), (8, 1)), num_requests=80)
    b = make_document(2, points=((4, 1), (8, 1), (16, 1)), num_requests=80, ttft_s=0.06)
    comparison = compare(side(a, "A"), side(b, "B"))
    assert list(comparison.loads) == ["concurrency 4", "concurrency 8"]
    for load in comparison.loads:
        assert against(a, b, load)["ttft_s.mean"].verdict == "worse"
    assert any("the loads differ" in words for words in comparison.warnings)
    nothing = make_document(2, points=((32, 1), (64, 1)), num_requests=80)
    with pytest.raises(BenchmarkError, match="no load in common"):
        compare(side(a, "A"), side(nothing, "B"))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"target": {"model": "another"}}, "the models differ: a-model and another"),
        ({"settings": {"input_len": 64}}, "the loads differ in input_len: 32 / 64"),
        ({"settings": {"--input-len": 64, "input_len": 64}}, "the loads differ in input_len: 32 / 64"),
        ({"points": ((8, 1),)}, "the loads differ: concurrency 4 against concurrency 8"),
        ({"num_tokens": 20}, "the answers differ in length: 16 and 20 tokens"),
        ({"invalid_reasons": ["the client was slow"]}, "B is INVALID: the client was slow"),
        ({"machine": {"cpu": {"name": "another", "cores": 8}}}, "the machines differ: cpu.name: a processor / another"),
        ({"prompt_tokens": 64}, "the prompts differ in length: 32 and 64 tokens"),
        ({"cached": 0.5}, "the prefix cache had different shares of the prompts: 0.0 % and 50.0 %"),
        ({"counted_by": "stream"}, "tokens were counted differently: by usage and by stream"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_makes_two_results_incomparable_is_said(make_document, changed, words):
    changed = dict(changed)
    beside = {name: changed.pop(name) for name in ("machine", "prompt_tokens", "cached", "counted_by") if name in changed}
    a, b = make_document(1, num_requests=80), make_document(2, num_requests=80, **changed)
    tokens = b["metrics"]["tokens"]
    b["machine"] = beside.get("machine", b["machine"])
    tokens["prompt"] = tokens["prompt"] // 32 * beside.get("prompt_tokens", 32)
    tokens["cached"] = tokens["prompt"] * beside.get("cached", 0)
    tokens["counted_by"] = beside.get("counted_by", "usage")
    told = compare(side(a, "A"), side(b, "B")).warnings
    assert [warning for warning in told if words in warning]


def test_like_with_like_is_not_warned_of(make_document):
    a, b = make_document(1, num_requests=80), make_document(2, num_requests=80, settings={"out": "b.json", "dtype": "int8"})
    b["target"]["url"] = "http://127.0.0.1:9090"
    b["machine"] = {**b["machine"], "memory_free_bytes": 17, "busy_share": 0.5}
    comparison = compare(side(a, "A"), side(b, "B"))
    assert comparison.warnings == []
    assert comparison.differing == ["url: http://127.0.0.1:8080 / http://127.0.0.1:9090", "dtype: None / int8"]


def other(kind, metrics, runs):
    """A document of a kind without load, as far as comparing goes."""
    beside = {"target": {"model": "a-model"}, "machine": {}, "versions": {}, "settings": {}, "schema_version": 1, "valid": True}
    return {"kind": kind, "metrics": metrics, "runs": runs, "requests": [], "invalid_reasons": [], **beside}


def startup(values):
    def start(repeat, value, server="tokenport", *, is_warm_up=False):
        load = {"kind": "start", "server": server, "is_warm_up": is_warm_up}
        return {"label": f"{server}, repeat {repeat}", "load": load, "repeat": repeat, "metrics": {"ready_s": value}}

    runs = [start(0, 99.0, is_warm_up=True)]
    for repeat, value in enumerate(values):
        runs += [start(repeat, value), start(repeat, 50.0, "vllm")]
    figures = {
        "mean": float(np.mean(values)),
        "min": min(values),
        "max": max(values),
        "num_samples": len(values),
        "ci": {"mean": [0.0, 99.0]},
    }
    return other("startup", {"ready_s": figures, "num_starts": len(values)}, runs)


def test_other_kinds_are_compared_on_every_number_they_have():
    differences = against(startup([20.0, 20.4, 19.8]), startup([15.0, 15.3, 14.9]))
    assert {name: one.verdict for name, one in differences.items()} == {"ready_s.mean": "better", "num_starts": "noise"}
    spread = differences["ready_s.mean"].spread
    assert spread.method == f"{REPEATS} (3 and 3)"
    assert (spread.a, spread.b) == pytest.approx((20.0667, 15.0667), abs=1e-3)
    assert against(startup([20.0]), startup([15.0]))["ready_s.mean"].verdict == "unclear"


def memory(*kv_cache_bytes):
    runs = [
        {"label": f"tp={number}", "load": {"kind": "configuration"}, "repeat": 0, "metrics": {"kv_cache_bytes": size}}
        for number, size in enumerate(kv_cache_bytes)
    ]
    return other("memory", {"num_tried": len(runs)}, runs)


def test_configurations_are_no_repeats_of_each_other():
    comparison = compare(side(memory(1e9, 2e9, 3e9), "A"), side(memory(1e9, 2.5e9, 3e9), "B"))
    assert list(comparison.loads) == ["", "tp=0", "tp=1", "tp=2"]
    assert [comparison.loads[f"tp={number}"][0].verdict for number in range(3)] == ["noise", "unclear", "noise"]


def test_results_of_different_commands_are_refused(make_document):
    with pytest.raises(BenchmarkError, match="one is of startup and one of throughput"):
        compare(side(make_document(num_requests=30), "A"), side(startup([1.0]), "B"))


def test_the_blocks_of_a_window_make_up_its_rate(make_document):
    document = make_document(1, num_requests=150, num_failed=5)
    (load,) = loads_of(document, 1).values()
    for name in ("output_tokens_per_s", "requests_per_s", "goodput.requests_per_s"):
        assert len(load.blocks(name)) == 20
        assert np.mean(load.blocks(name)) == pytest.approx(load.figures[name], rel=2e-3)


def single_stream(document, *lengths):
    """A result of `latency`: the runs of a sweep as those of prompts of these lengths."""
    for run, length in zip(document["runs"], lengths, strict=True):
        run["load"] = {"kind": "closed", "concurrency": 1, "input_length": str(length)}
    by_length = {str(length): run["metrics"] for run, length in zip(document["runs"], lengths, strict=True)}
    return document | {"kind": "latency", "metrics": {"num_requests": 1, "by_input_len": by_length}}


def test_single_streams_are_compared_by_the_length_of_the_prompt(make_document):
    a = single_stream(make_document(1, points=((1, 1), (2, 1)), num_requests=60), 32, 128)
    b = single_stream(make_document(2, points=((1, 1), (2, 1)), num_requests=60, ttft_s=0.07), 32, 128)
    comparison = compare(side(a, "A"), side(b, "B"))
    assert list(comparison.loads) == ["32 tokens of prompt", "128 tokens of prompt"]
    for load in comparison.loads:
        differences = against(a, b, load)
        assert (differences["ttft_s.p50"].verdict, differences["ttft_s.p50"].spread.method) == ("worse", REQUESTS)
        assert differences["tpot_s.mean"].verdict == "noise"
    drawn = latency_by_length(a)
    assert [chart.id for chart in drawn] == ["length-ttft_s", "length-tpot_s"]
    assert list(drawn[0].traces[0]["x"]) == [32.0, 128.0]
    assert drawn[0].traces[0]["y"][0] == pytest.approx(a["runs"][0]["metrics"]["ttft_s"]["p50"] * 1e3)
