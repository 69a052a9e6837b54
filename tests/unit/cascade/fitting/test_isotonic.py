import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cascade.fitting.isotonic import rising_line


def least_squares(labels):
    """The best rising fit by its definition: at each place the greatest of the least means of stretches around it."""
    num = len(labels)
    return [max(min(np.mean(labels[low : high + 1]) for high in range(place, num)) for low in range(place + 1)) for place in range(num)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_levels_are_those_of_the_best_rising_fit(labels):
    scores = np.arange(len(labels), dtype=float)
    steps, levels = rising_line(scores, np.array(labels))
    assert np.interp(steps, steps, levels).tolist() == levels.tolist()
    best = least_squares(labels)
    assert set(np.round(levels, 9)) <= set(np.round(best, 9))
    assert levels[0] == pytest.approx(best[0])
    assert levels[-1] == pytest.approx(best[-1])
    assert (np.diff(levels) >= 0).all()
    assert (np.diff(steps) > 0).all()


def test_a_step_is_where_its_scores_are_on_average():
    steps, levels = rising_line(np.array([0.1, 0.2, 0.6, 0.9]), np.array([1.0, 0.0, 0.5, 1.0]))
    assert steps.tolist() == pytest.approx([0.3, 0.9])
    assert levels.tolist() == pytest.approx([0.5, 1.0])


def test_requests_of_the_same_score_share_a_level():
    steps, levels = rising_line(np.array([0.5, 0.5, 0.5, 0.8]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert steps.tolist() == [0.5, 0.8]
    assert levels.tolist() == pytest.approx([2 / 3, 1.0])
