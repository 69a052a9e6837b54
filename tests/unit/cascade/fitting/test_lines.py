import numpy as np
import pytest

from serving.cascade.fitting.lines import Way, lines

SMALL_ENDS, LARGE_ENDS, EITHER = ((0.0, 0.1), (0.0, 0.1)), ((1.0, 1.0), (1.0, 1.0)), ((0.0, 0.1), (1.0, 1.0))


def alone(quality, *, cost=1.0, share=1.0, ends=LARGE_ENDS):
    """A way that always costs the same and always asks the same tier."""
    quality = np.asarray(quality, dtype=float)
    return Way(quality, np.full(len(quality), cost), np.full(len(quality), share), ends)


def test_thirty_right_answers_are_not_right_for_certain():
    large = alone(np.ones(30))
    small, _ = lines([alone(np.ones(30), cost=0.1, share=0.0, ends=SMALL_ENDS), large], large, 0.95, seed=0)
    # A tier that is right in nine of ten is right in thirty of thirty once in 24 times: 0.9 ** 30.
    assert 0.8 < small.quality_interval[0] < 0.95
    assert small.quality_ratio_interval[0] < 0.95
    assert small.quality_interval[1] == 1


def test_what_a_way_does_by_definition_is_certain():
    large = alone([1, 0, 1, 1])
    (found,) = lines([large], large, 0.95, seed=0)
    assert found.share_large_interval == found.quality_ratio_interval == found.cost_interval == (1, 1)


def test_what_never_happened_may_happen_yet():
    large = alone(np.ones(30))
    (found,) = lines([Way(np.ones(30), np.full(30, 0.1), np.zeros(30), EITHER)], large, 0.95, seed=0)
    assert (found.share_large, found.cost) == pytest.approx((0, 0.1))
    assert found.share_large_interval[1] > 0.05
    assert found.cost_interval[1] > 0.1 + 0.05 * 0.9


@pytest.mark.parametrize(("num", "chance"), [(30, 0.99), (30, 0.95), (100, 0.99), (300, 0.6)])
def test_intervals_cover_the_truth_as_often_as_they_say_also_with_few_requests(num, chance):
    random = np.random.default_rng(0)
    ways = [alone(random.random(num) < chance) for _ in range(200)]
    found = lines(ways, ways[0], 0.95, seed=0)
    assert np.mean([low <= chance <= high for low, high in (line.quality_interval for line in found)]) >= 0.9
    assert all(line.quality_interval[0] <= line.quality <= line.quality_interval[1] for line in found)


def test_there_is_no_share_of_nothing():
    wrong, right = alone([0, 0], cost=0.0), alone([1, 0], cost=0.0)
    (found,) = lines([right], wrong, 0.95, seed=0)
    assert (found.quality_ratio, found.quality_ratio_interval, found.saving) == (None, None, None)
    assert found.target_met
