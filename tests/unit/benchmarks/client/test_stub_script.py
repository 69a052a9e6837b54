"""The stub's script, and the clock that stands still while it stalls."""

import pytest

from benchmarks.client.stub_script import Behaviour, Script, WorkClock, script_from
from serving.errors import BenchmarkError


def test_work_stands_still_during_the_stall_and_goes_on_after_it():
    clock = WorkClock(Script(stall_at_s=2.0, stall_s=5.0))
    clock.note_request(10.0)
    assert [clock.work_at(time_s) for time_s in (11.0, 12.0, 15.0, 17.0, 18.0)] == [11.0, 12.0, 12.0, 12.0, 13.0]
    assert [clock.time_of(work_s) for work_s in (11.0, 12.0, 13.0)] == [11.0, 17.0, 18.0]


def test_without_a_stall_work_is_time():
    clock = WorkClock(Script())
    clock.note_request(1.0)
    assert (clock.work_at(5.0), clock.time_of(5.0)) == (5.0, 5.0)


def test_a_script_holds_the_servers_fields_and_those_of_each_request():
    assert script_from('{"ttft_s": 0.5, "stall_s": 2, "model": null}') == Script(Behaviour(ttft_s=0.5), stall_s=2, model=None)


@pytest.mark.parametrize("text", ["{", "[]", '{"tttf_s": 1}'])
def test_a_wrong_script_is_told(text):
    with pytest.raises(BenchmarkError, match="--script"):
        script_from(text)
