"""What the ceiling's rows come to."""

from benchmarks.client.ceiling import summary


def row(rate: float, delivered: float, lag_s: float, *, streams: int = 64, num_failed: int = 0):
    lag = {"p50": lag_s, "p99": lag_s, "max": lag_s}
    return {
        "streams": streams,
        "processes": 1,
        "offered_events_per_s": rate,
        "num_failed": num_failed,
        "delivered_events_per_s": delivered,
        "delivered_reads_per_s": delivered / 2,
        "loop_lag_s": lag,
    }


def test_the_ceiling_is_the_most_that_came_and_the_most_that_came_on_time():
    [one, other] = summary([row(100, 100, 0.001), row(200, 200, 0.002), row(400, 250, 0.3), row(100, 90, 0.4, streams=8)])
    assert (one["streams"], one["most_events_per_s"], one["loop_lag_s"]["p99"]) == (64, 250, 0.3)
    assert (one["most_on_time_events_per_s"], one["most_on_time_reads_per_s"]) == (200, 100)
    assert (other["streams"], other["most_events_per_s"], other["most_on_time_events_per_s"]) == (8, 90, None)


def test_rates_with_failures_do_not_count():
    [one] = summary([row(100, 100, 0.001), row(200, 200, 0.001, num_failed=1)])
    assert one["most_events_per_s"] == 100
