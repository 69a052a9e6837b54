"""The client's own load: an event loop that is held up shows it, with every wake-up that was missed."""

import gc
import time

from benchmarks.client.watch import LAG_INTERVAL_S, LoopWatch, without_garbage_collection


async def test_a_held_up_loop_shows_in_the_lag_of_every_missed_wake_up_and_in_cpu():
    async with LoopWatch() as watch:
        started_s = time.monotonic()
        while time.monotonic() - started_s < 0.5:
            pass
    load = watch.load(process=3, num_requests=7)
    assert (load.process, load.num_requests, load.lag_interval_s) == (3, 7, LAG_INTERVAL_S)
    assert len(load.loop_lag_s) >= 49
    assert max(load.loop_lag_s) > 0.45
    assert sum(lag > 0.2 for lag in load.loop_lag_s) >= 25
    assert load.wall_s >= 0.5
    assert 0.0 < load.cpu_share <= 1.2


def test_the_collector_rests_while_it_is_measured():
    with without_garbage_collection():
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
