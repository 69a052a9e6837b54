"""Settings to go through, and the search for the largest that fits."""

import pytest

from benchmarks.commands.settings_sweep import Range, Search, label_of, parse_range, parse_sweep, words_of
from serving.errors import BenchmarkError


def test_every_combination_the_last_changing_fastest():
    assert parse_sweep("quantization=none,int8  max_model_len=1024,2048") == [
        {"quantization": "none", "max_model_len": "1024"},
        {"quantization": "none", "max_model_len": "2048"},
        {"quantization": "int8", "max_model_len": "1024"},
        {"quantization": "int8", "max_model_len": "2048"},
    ]
    assert parse_sweep("") == [{}]


def test_names_are_written_either_way():
    assert parse_sweep("--max-model-len=1") == parse_sweep("max_model_len=1")


def test_arguments_of_the_server():
    assert words_of({"quantization": "int8", "max_model_len": "1024", "dtype": "none"}) == ["--quantization=int8", "--max-model-len=1024"]
    assert label_of({"quantization": "none"}) == "quantization=none"
    assert label_of({}) == "as given"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dtype", "'dtype'"),
        ("dtype=", "'dtype='"),
        ("dtype=a,,b", "'dtype=a,,b'"),
        ("=1", "no setting"),
        ("Dtype=1", "no setting"),
        ("dtype=a dtype=b", "dtype twice"),
        ("dtype=a,a", "a value twice"),
        ("model=x", "cannot change model"),
        ("port=1", "cannot change port"),
    ],
)
def test_what_is_no_sweep_is_told(text, told):
    with pytest.raises(BenchmarkError, match="--sweep") as error:
        parse_sweep(text)
    assert told in str(error.value)


def test_a_range_with_and_without_suffixes():
    assert parse_range("max_model_len=1024..65536") == Range("max_model_len", 1024, 65536)
    assert parse_range("kv_cache_memory_bytes=256M..8G") == Range("kv_cache_memory_bytes", 2**28, 2**33)
    assert parse_range("kv-cache-memory-bytes=1k..1K") == Range("kv_cache_memory_bytes", 1000, 1024)


@pytest.mark.parametrize("text", ["max_model_len", "a=5", "a=1.5..2", "a=2..1", "a=0..5", "a=..5", "a=1..1", "port=1..2", "a=1X..2X"])
def test_what_is_no_range_is_told(text):
    with pytest.raises(BenchmarkError, match="--largest"):
        parse_range(text)


def searched(over, limit):
    search, tried = Search(over), []
    while (value := search.next_value()) is not None:
        tried.append(value)
        search.tell(value, fits=value <= limit)
        assert len(tried) < 40
    return search.largest_that_fits, tried


def test_the_top_is_tried_first():
    assert searched(Range("a", 1024, 65536), 10**6) == (65536, [65536])


def test_where_nothing_fits_it_ends_with_the_bottom():
    assert searched(Range("a", 1024, 65536), 10) == (None, [65536, 1024])


@pytest.mark.parametrize("limit", [1024, 1025, 3000, 20_000, 65_000])
def test_the_largest_within_five_percent(limit):
    found, tried = searched(Range("a", 1024, 65536), limit)
    assert limit / 1.05 <= found <= limit
    assert len(tried) <= 10


def test_small_numbers_are_found_exactly():
    assert searched(Range("tensor_parallel_size", 1, 8), 3)[0] == 3
