"""Plans that are refused before a process is started."""

import pytest

from benchmarks.client.processes import run_plan
from benchmarks.client.target import TargetSpec
from benchmarks.load.plan import Plan
from serving.errors import BenchmarkError


def test_an_empty_plan_is_told():
    with pytest.raises(BenchmarkError, match="no requests"):
        run_plan(Plan(()), TargetSpec("completions", "http://127.0.0.1:1"))
