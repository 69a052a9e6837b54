"""Length distributions: what each form draws, and what is refused."""

import numpy as np
import pytest

from benchmarks.load.lengths import parse_distribution, parse_lengths
from serving.errors import BenchmarkError


def drawn(text, num=20_000, **limits):
    return parse_lengths("--input-len", text).draw_lengths(num, np.random.default_rng(3), **limits)


def test_a_number_is_always_itself():
    assert set(drawn("128")) == {128}


def test_a_range_has_both_its_ends_and_all_between_as_often():
    values, counts = np.unique(drawn("3..6"), return_counts=True)
    assert values.tolist() == [3, 4, 5, 6]
    assert counts / 20_000 == pytest.approx(0.25, abs=0.02)


def test_normal_has_its_mean_and_deviation():
    lengths = drawn("normal:1000,50")
    assert lengths.mean() == pytest.approx(1000, abs=2)
    assert lengths.std() == pytest.approx(50, rel=0.04)


def test_lognormal_has_its_median_and_sigma():
    lengths = drawn("lognormal:2000,0.5")
    assert np.median(lengths) == pytest.approx(2000, rel=0.03)
    assert np.log(lengths).std() == pytest.approx(0.5, rel=0.04)


def test_a_file_is_drawn_from(tmp_path):
    file = tmp_path / "lengths.txt"
    file.write_text("10\n\n20\n20\n")
    values, counts = np.unique(drawn(f"file:{file}"), return_counts=True)
    assert values.tolist() == [10, 20]
    assert counts[1] / counts[0] == pytest.approx(2, rel=0.1)


def test_lengths_are_clipped_to_one_and_to_the_maximum():
    lengths = drawn("normal:5,10", maximum=9)
    assert lengths.min() == 1
    assert lengths.max() == 9


def test_seconds_may_be_fractions_and_are_never_below_zero():
    seconds = parse_distribution("--think", "normal:0.5,1").draw_seconds(1000, np.random.default_rng(1))
    assert seconds.min() == 0
    assert 0.4 < np.median(seconds) < 0.6


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("many", "--input-len many: must be a number (128), a range (64..256), normal:MEAN,DEVIATION"),
        ("-4", "--input-len -4: must be a number"),
        ("inf", "--input-len inf: must be a number"),
        ("64..", "--input-len 64..: must be a number"),
        ("normal:128", "--input-len normal:128: must be"),
        ("normal:1,2,3", "must be"),
        ("256..64", "--input-len 256..64: the range runs backwards; write 64..256"),
        ("lognormal:0,1", "the median of a lognormal must be above zero"),
        ("0", "--input-len 0: a length is a whole number of tokens, at least 1"),
        ("1.5", "--input-len 1.5: a length is a whole number of tokens, at least 1"),
        ("0..9", "a length is a whole number of tokens, at least 1"),
    ],
)
def test_what_is_no_distribution_of_lengths_is_refused(text, told):
    with pytest.raises(BenchmarkError) as error:
        parse_lengths("--input-len", text)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "the file has no numbers; it must have one a line"),
        ("12\nxii\n", "line 2 is 'xii'; each line must be one number"),
        (None, "the file cannot be read"),
    ],
)
def test_a_file_without_numbers_is_refused(tmp_path, content, told):
    file = tmp_path / "lengths.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BenchmarkError) as error:
        parse_lengths("--output-len", f"file:{file}")
    assert str(error.value).startswith(f"--output-len file:{file}: ")
    assert told in str(error.value)
