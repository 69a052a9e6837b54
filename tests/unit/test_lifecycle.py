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
