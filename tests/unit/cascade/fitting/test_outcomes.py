import hashlib

import numpy as np
import pytest

from serving.cascade.fitting.outcomes import read_outcomes
from serving.errors import CascadeError
from tests.unit.cascade.outcome_files import line, write_lines

SMALL = {"quality": 0.5, "cost": 0.1, "signals": {"margin_mean": 0.75}}
LARGE = {"quality": 1, "cost": 1, "signals": {}}
GOOD = line(1, {"large": LARGE, "small": SMALL})


def test_a_file_becomes_columns_with_the_cheaper_tier_first(tmp_path):
    file = write_lines(tmp_path / "outcomes.jsonl", [GOOD, line(2, {"small": SMALL | {"quality": 0}, "large": LARGE})])
    outcomes = read_outcomes(file)
    assert outcomes.tiers == ("small", "large")
    assert outcomes.assumed_order
    assert outcomes.quality.tolist() == [[0.5, 1.0], [0.0, 1.0]]
    assert outcomes.cost.tolist() == [[0.1, 1.0], [0.1, 1.0]]
    assert outcomes.signals["small"]["margin_mean"].tolist() == [0.75, 0.75]
    assert outcomes.signals["large"] == {}
    assert outcomes.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_order_of_the_tiers_can_be_given(tmp_path):
    outcomes = read_outcomes(write_lines(tmp_path / "outcomes.jsonl", [GOOD]), ("large", "small"))
    assert outcomes.tiers == ("large", "small")
    assert not outcomes.assumed_order


def test_tiers_of_equal_cost_stay_in_the_order_of_the_first_line(tmp_path):
    file = write_lines(tmp_path / "outcomes.jsonl", [line(1, {"b": LARGE, "a": LARGE}), line(2, {"a": LARGE, "b": LARGE})])
    assert read_outcomes(file).tiers == ("b", "a")


def test_signals_may_be_left_out(tmp_path):
    bare = {"quality": 1, "cost": 1}
    assert read_outcomes(write_lines(tmp_path / "o.jsonl", [line(1, {"a": bare, "b": bare})])).signals == {"a": {}, "b": {}}


def test_a_part_keeps_the_files_hash(tmp_path):
    outcomes = read_outcomes(write_lines(tmp_path / "o.jsonl", [GOOD, line(2, {"small": SMALL | {"quality": 0}, "large": LARGE})]))
    part = outcomes.take(np.array([1]))
    assert (len(part), part.quality.tolist(), part.sha256) == (1, [[0.0, 1.0]], outcomes.sha256)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("{not json", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ('{"id": "2", "id": "3"}', "'id' is there twice"),
        ("[1]", "line 2 is [1]; expected an object with id, messages, outcomes"),
        (GOOD, "line 2: id '1' is that of line 1"),
        ({**GOOD, "id": ""}, 'line 2: id is ""'),
        ({**GOOD, "id": True}, "line 2: id is true"),
        ({**GOOD, "id": "2", "outcome": {}}, "line 2: unknown field 'outcome'; did you mean 'outcomes'?"),
        ({"id": "2", "outcomes": GOOD["outcomes"]}, "line 2: 'messages' is missing"),
        ({**GOOD, "id": "2", "messages": []}, "line 2: messages is []"),
        ({**GOOD, "id": "2", "messages": ["hello"]}, 'line 2: messages[0] is "hello"'),
        ({**GOOD, "id": "2", "messages": [{"role": "user", "content": 3}]}, "line 2: messages[0].content is 3"),
        (line(2, {"small": SMALL}), "line 2: outcomes is"),
        (line(2, {"small": SMALL, "medium": LARGE}), "line 2: outcomes has no tier 'large', which the first line has"),
        (line(2, {"small": SMALL, "large": LARGE, "huge": LARGE}), "has the tier 'huge', which the first line has not"),
        (line(2, {"small": 1, "large": LARGE}), "line 2: outcomes.small is 1; expected an object"),
        (line(2, {"small": {"cost": 1}, "large": LARGE}), "line 2: outcomes.small: 'quality' is missing"),
        (line(2, {"small": SMALL | {"quality": 1.2}, "large": LARGE}), "outcomes.small.quality is 1.2; expected a number from 0 to 1"),
        (line(2, {"small": SMALL | {"quality": True}, "large": LARGE}), "outcomes.small.quality is true"),
        (line(2, {"small": SMALL | {"quality": float("nan")}, "large": LARGE}), "outcomes.small.quality is NaN"),
        (line(2, {"small": SMALL | {"cost": -1}, "large": LARGE}), "line 2: outcomes.small.cost is -1; expected a number from 0 to 1e+100"),
        (line(2, {"small": SMALL | {"cost": float("inf")}, "large": LARGE}), "outcomes.small.cost is Infinity"),
        (line(2, {"small": SMALL | {"cost": 10**400}, "large": LARGE}), "line 2: outcomes.small.cost is 1000"),
        (line(2, {"small": SMALL | {"cost": 1e308}, "large": LARGE}), "line 2: outcomes.small.cost is 1e+308"),
        (
            line(2, {"small": SMALL | {"signals": {"margin_mean": -1e200}}, "large": LARGE}),
            "margin_mean is -1e+200; expected a number from",
        ),
        (line(2, {"small": SMALL | {"price": 1}, "large": LARGE}), "line 2: outcomes.small: unknown field 'price'"),
        (line(2, {"small": SMALL | {"signals": [1]}, "large": LARGE}), "line 2: outcomes.small.signals is [1]"),
        (line(2, {"small": SMALL | {"signals": {}}, "large": LARGE}), "outcomes.small.signals has no signal 'margin_mean'"),
        (line(2, {"small": SMALL | {"signals": {"margin_mean": "high"}}, "large": LARGE}), 'outcomes.small.signals.margin_mean is "high"'),
        (line(2, {"small": SMALL, "large": LARGE | {"signals": {"margin_mean": 1}}}), "has the signal 'margin_mean'"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_field(tmp_path, second, told):
    with pytest.raises(CascadeError) as error:
        read_outcomes(write_lines(tmp_path / "outcomes.jsonl", [GOOD, second]))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tiers", [("small",), ("small", "larger"), ("small", "large", "large")])
def test_other_tiers_than_those_of_the_file_are_refused(tmp_path, tiers):
    with pytest.raises(CascadeError, match="has the tiers large, small"):
        read_outcomes(write_lines(tmp_path / "outcomes.jsonl", [GOOD]), tiers)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(CascadeError, match="is empty"):
        read_outcomes(write_lines(tmp_path / "outcomes.jsonl", [""]))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CascadeError, match=r"cannot read .*outcomes\.jsonl: No such file"):
        read_outcomes(tmp_path / "outcomes.jsonl")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "outcomes.jsonl"
    file.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(CascadeError, match="line 1 is not JSON"):
        read_outcomes(file)
