"""Limits in words."""

import pytest

from benchmarks.measuring.slo import Slo, parse_slo
from serving.errors import BenchmarkError


def test_limits_have_units():
    assert parse_slo("ttft=500ms, tpot=30ms,e2e=5s", 0.9) == Slo(0.5, 0.03, 5.0, 0.9)


def test_presets_are_mlperfs():
    assert parse_slo("mlperf-llama3.1-8b-interactive", 0.99) == Slo(0.5, 0.03, None, 0.99)


@pytest.mark.parametrize(
    ("text", "share", "words"),
    [
        ("ttft=500", 0.99, "ttft=500ms"),
        ("ttfd=5s", 0.99, "known are ttft, tpot, e2e"),
        ("ttft=0s", 0.99, "ttft=500ms"),
        ("ttft=1s,ttft=2s", 0.99, "given twice"),
        ("mlperf-llama3-8b", 0.99, "mlperf-llama3.1-8b"),
        ("ttft=1s", 1.5, "--slo-share 1.5"),
    ],
)
def test_wrong_limits_are_named(text, share, words):
    with pytest.raises(BenchmarkError, match=words):
        parse_slo(text, share)
