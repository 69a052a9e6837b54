"""`--fail-if`: what may be written, and when it fails."""

import pytest

from benchmarks.report.comparison import Comparison, Difference, Side
from benchmarks.report.conditions import failed, parse_condition
from benchmarks.report.figures import ALIASES, better
from benchmarks.report.uncertainty import Spread
from serving.errors import BenchmarkError

KNOWN = list(ALIASES.values())


def difference(name="output_tokens_per_s", a=100.0, b=90.0, half=2.0):
    """B minus A with an interval of so much around it."""
    low, high = b - a - half, b - a + half
    shares = ((b - a) / a, low / a, high / a) if a else (None, None, None)
    return Difference(name, a, b, Spread(a, b, low, high, *shares, "test"), "noise" if low <= 0 <= high else "worse")


def fails(text, *differences, strict=False):
    condition = parse_condition(text, KNOWN)
    comparison = Comparison(Side("A", []), Side("B", []), {"concurrency 4": list(differences)}, [], [])
    return bool(failed([condition], [comparison], strict=strict))


@pytest.mark.parametrize(
    ("text", "name", "is_below", "limit", "is_relative"),
    [
        ("tok_s < -5%", "output_tokens_per_s", True, -0.05, True),
        ("tok_s<-5%", "output_tokens_per_s", True, -0.05, True),
        ("  ttft_p99 >= 20ms ", "ttft_s.p99", False, 0.02, False),
        ("e2e_p90>0.5s", "e2e_s.p90", False, 0.5, False),
        ("itl > +1.5 %", "itl_s.mean", False, 0.015, True),
        ("tpot_s.p50 > 0.001", "tpot_s.p50", False, 0.001, False),
        ("failed > 0", "failed_share", False, 0.0, False),
        ("cost > 3%", "cost.usd_per_million_output_tokens", False, 0.03, True),
    ],
)
def test_a_condition_is_a_metric_an_operator_and_a_limit(text, name, is_below, limit, is_relative):
    condition = parse_condition(text, KNOWN)
    assert (condition.name, condition.is_below, condition.is_relative) == (name, is_below, is_relative)
    assert condition.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    "text", ["", "tok_s", "tok_s < ", "tok_s = 5%", "tok_s < five", "tok_s < 5 kg", "< 5%", "tok_s < 5% or more", "tok_s << 5"]
)
def test_what_is_no_condition_is_shown_how_one_looks(text):
    with pytest.raises(BenchmarkError, match=r"METRIC OP NUMBER.*tok_s < -5%"):
        parse_condition(text, KNOWN)


def test_an_unknown_metric_is_answered_with_the_known_ones():
    with pytest.raises(BenchmarkError, match=r"tokens is no metric of these files; there are tok_s, total_tok_s, req_s.*ttft_p99.*e2e_p90"):
        parse_condition("tokens < -5%", KNOWN)
    with pytest.raises(BenchmarkError, match=r"there are phases_s\.loading, ready_s"):
        parse_condition("tok_s < -5%", ["ready_s", "phases_s.loading"])


@pytest.mark.parametrize(
    ("b", "half", "expected"),
    [
        (90.0, 2.0, True),  # -10 %, and surely so
        (94.0, 5.5, True),  # -6 %, surely a loss, though perhaps less than 5 %
        (94.0, 7.0, False),  # -6 %, which may be nothing
        (96.0, 1.0, False),  # a loss, but not beyond the limit
        (110.0, 1.0, False),
        (95.0, 1.0, False),  # at the limit, not beyond
    ],
)
def test_a_loss_fails_beyond_the_limit_and_beyond_noise(b, half, expected):
    assert fails("tok_s < -5%", difference(b=b, half=half)) is expected


def test_strict_asks_for_the_limit_alone():
    assert not fails("tok_s < -5%", difference(b=94.0, half=7.0))
    assert fails("tok_s < -5%", difference(b=94.0, half=7.0), strict=True)
    assert not fails("tok_s < -5%", difference(b=96.0, half=7.0), strict=True)


@pytest.mark.parametrize(("operator", "expected"), [("<", False), ("<=", True)])
def test_at_the_limit(operator, expected):
    assert fails(f"tok_s {operator} -5", difference(b=95.0, half=1.0)) is expected


def test_a_rise_fails_above_the_limit():
    slower = difference("ttft_s.p99", a=0.1, b=0.13, half=0.01)
    assert fails("ttft_p99 > 20ms", slower)
    assert fails("ttft_p99 > 20%", slower)
    assert not fails("ttft_p99 > 40ms", slower)
    assert not fails("ttft_p99 < -5%", slower)


def test_a_gain_that_is_demanded_is_missed_where_it_surely_is_not_there():
    assert fails("tok_s < 5%", difference(b=101.0, half=1.0))
    assert not fails("tok_s < 5%", difference(b=104.0, half=3.0))
    assert not fails("tok_s < 5%", difference(b=110.0, half=1.0))


def test_without_an_interval_only_strict_fails():
    alone = Difference("output_tokens_per_s", 100.0, 50.0, None, "unclear", "one value a side")
    assert not fails("tok_s < -5%", alone)
    assert fails("tok_s < -5%", alone, strict=True)


def test_what_was_not_measured_cannot_be_judged():
    missing = Difference("ttft_s.p99", None, 0.1, None, "unclear", "too few samples")
    with pytest.raises(BenchmarkError, match="cannot be judged: too few samples"):
        fails("ttft_p99 > 5%", missing)
    nothing = difference("failed_share", a=0.0, b=0.1, half=0.01)
    with pytest.raises(BenchmarkError, match="is 0 on the first side"):
        fails("failed > 5%", nothing)
    assert fails("failed > 0.05", nothing)


def test_every_short_name_is_of_a_figure_with_a_better_side():
    assert {name for name in ALIASES.values() if better(name) == 0} == set()
    assert [better(ALIASES[name]) for name in ("tok_s", "req_s", "goodput", "mbu")] == [1] * 4
    assert [better(ALIASES[name]) for name in ("ttft_p99", "itl", "failed", "joules", "cost")] == [-1] * 5
    assert better("kv_cache_bytes") == 0
