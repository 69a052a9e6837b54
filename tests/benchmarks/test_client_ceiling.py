"""The client's ceiling, measured at a rate that any machine delivers."""

from benchmarks.client.ceiling import measure


def test_what_is_due_is_delivered_and_the_clients_share_of_it_is_told():
    row = measure(num_streams=8, num_processes=2, rate=200.0)
    assert (row["streams"], row["processes"], row["num_failed"]) == (8, 2, 0)
    assert 150 < row["delivered_events_per_s"] < 250
    assert 0 < row["delivered_reads_per_s"] <= row["delivered_events_per_s"]
    assert len(row["cpu_share"]) == 2
    assert all(0 < share < 1 for share in row["cpu_share"])
    assert 0 < row["loop_lag_s"]["p50"] <= row["loop_lag_s"]["p99"] <= row["loop_lag_s"]["max"]
