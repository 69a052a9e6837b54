"""The search for the highest rate that keeps the limits."""

import pytest

from benchmarks.measuring.search import search_rate


@pytest.mark.parametrize("limit", [0.3, 1.0, 5.7, 900.0])
def test_it_ends_within_the_tolerance_of_the_limit(limit):
    tried = list(search_rate(lambda rate: rate <= limit, 4.0, 0.1))
    best = max(rate for rate, is_kept in tried if is_kept)
    assert best <= limit < best * 1.1 * 1.0001
    assert len(tried) < 16


@pytest.mark.parametrize(("answer", "is_kept"), [(True, True), (False, False)])
def test_it_gives_up_where_nothing_changes(answer, is_kept):
    tried = list(search_rate(lambda _: answer, 1.0, 0.1))
    assert len(tried) == 12
    assert {kept for _, kept in tried} == {is_kept}
