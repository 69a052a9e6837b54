import pytest

from serving.api.lifecycle import Lifecycle, State


def test_start_up_shows_phase_and_fraction():
    lifecycle = Lifecycle()
    lifecycle.progress("loading weights", 0.12345)
    assert lifecycle.snapshot() == {"status": "starting", "phase": "loading weights", "fraction": 0.123}
    assert not lifecycle.is_ready


def test_a_late_report_changes_nothing_once_ready():
    lifecycle = Lifecycle()
    lifecycle.ready()
    lifecycle.progress("loading weights", 0.5)
    assert lifecycle.is_ready
    assert lifecycle.snapshot() == {"status": "ready", "phase": "ready"}


def test_draining_and_failing_tell_the_reason():
    lifecycle = Lifecycle()
    lifecycle.ready()
    lifecycle.drain("received SIGTERM")
    assert lifecycle.snapshot()["reason"] == "received SIGTERM"
    lifecycle.fail("the engine died")
    assert lifecycle.snapshot() == {"status": "failed", "phase": "failed", "reason": "the engine died"}


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ([], State.STOPPED),
        ([State.READY], State.READY),
        ([State.READY, State.DRAINING], State.READY),
        ([State.READY, State.DRAINING, State.STOPPED], State.FAILED),
        ([State.FAILED], State.DRAINING),
    ],
)
def test_no_state_is_reached_out_of_order(path, refused):
    lifecycle = Lifecycle()
    moves = {
        State.READY: lifecycle.ready,
        State.DRAINING: lambda: lifecycle.drain("test"),
        State.STOPPED: lifecycle.stop,
        State.FAILED: lambda: lifecycle.fail("test"),
    }
    for state in path:
        moves[state]()
    before = lifecycle.state
    with pytest.raises(ValueError, match="cannot become"):
        moves[refused]()
    assert lifecycle.state is before


def test_the_phases_of_start_up_add_up_to_the_time_until_ready():
    now = 100.0
    lifecycle = Lifecycle(age_s=2.0, clock=lambda: now)
    for phase, until in (("importing", 103.0), ("loading weights", 104.0), ("warming up", 105.0), ("loading weights", 107.0)):
        now = until
        lifecycle.progress(phase)
    now = 110.0
    lifecycle.progress("loading weights", 0.5)
    lifecycle.ready()
    assert lifecycle.start_up_s == {"starting": 5.0, "importing": 1.0, "loading weights": 4.0, "warming up": 2.0}
    now = 120.0
    lifecycle.progress("warming up")
    lifecycle.stall("why")
    lifecycle.ready()
    assert sum(lifecycle.start_up_s.values()) == 12.0
