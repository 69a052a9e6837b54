import pytest

from serving.engine.progress import CONFIG_KEY, ProgressListener, send_error, send_progress


@pytest.fixture
def listening():
    reports = []
    with ProgressListener(lambda *report: reports.append(report)) as listener:
        yield listener, {CONFIG_KEY: listener.path}, reports


def test_reports_arrive_in_order(listening):
    listener, config, reports = listening
    send_progress(config, "loading weights", 0.5)
    send_progress(config, "warming up")
    listener.drain()
    assert reports == [("loading weights", 0.5), ("warming up", None)]


def test_the_first_error_is_kept_as_one_line(listening):
    listener, config, _ = listening
    send_error(config, ValueError("not enough\n  memory"))
    send_error(config, ValueError("a consequence"))
    listener.drain()
    assert listener.error == "not enough memory"


def test_an_error_without_text_is_named_by_its_class(listening):
    listener, config, _ = listening
    send_error(config, AssertionError())
    listener.drain()
    assert listener.error == "AssertionError"


def test_sending_after_start_up_is_harmless(listening):
    listener, config, _ = listening
    listener.__exit__()
    send_progress(config, "too late")
    listener.__enter__()


def test_sending_without_a_listener_is_harmless():
    send_progress({}, "nobody asked")
