import pytest

from serving.engine.progress import CONFIG_KEY, ProgressListener, lasting, send_error, send_progress


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


def test_errors_are_kept_in_their_order_each_as_one_line(listening):
    listener, config, _ = listening
    send_error(config, ValueError("not enough\n  memory"))
    send_error(config, ValueError("a consequence"))
    assert listener.errors() == ["not enough memory", "a consequence"]


def test_errors_of_long_ago_can_be_left_out(listening):
    listener, config, _ = listening
    send_error(config, ValueError("an adapter did not load"))
    assert listener.errors(within_s=60) == ["an adapter did not load"]
    assert listener.errors(within_s=-1) == []


def test_an_engine_that_goes_on_failing_fills_no_memory(listening):
    listener, config, _ = listening
    for number in range(100):
        send_error(config, ValueError(f"failure {number}"))
        listener.drain()
    kept = listener.errors()
    assert len(kept) <= 32
    assert kept[-1] == "failure 99"


def test_an_error_without_text_is_named_by_its_class(listening):
    listener, config, _ = listening
    send_error(config, AssertionError())
    assert listener.errors() == ["AssertionError"]


def test_sending_after_start_up_is_harmless(listening):
    listener, config, _ = listening
    listener.__exit__()
    send_progress(config, "too late")
    listener.__enter__()


def test_sending_without_a_listener_is_harmless():
    send_progress({}, "nobody asked")


def test_what_lasts_of_the_configuration_is_all_but_the_socket():
    assert lasting({"mine": 1, CONFIG_KEY: "/tmp/a"}) == lasting({"mine": 1, CONFIG_KEY: "/tmp/b"}) == {"mine": 1}


def test_an_object_that_hashes_itself_lasts_as_it_is():
    config = object()
    assert lasting(config) is config
