import pytest

from serving.errors import SettingsError
from serving.settings import load_settings


def settings(**environ):
    return load_settings([], {f"TOKENPORT_{name.upper()}": value for name, value in environ.items()})


def test_a_kv_cache_may_be_sized_in_tokens_or_in_sequences():
    assert settings(kv_cache_tokens="64k").kv_cache_tokens == 64_000
    assert load_settings(["--max-concurrency", "4"], {}).max_concurrency == 4
    assert (settings().kv_cache_tokens, settings().max_concurrency) == (None, None)


@pytest.mark.parametrize("name", ["kv_cache_tokens", "max_concurrency"])
def test_nothing_is_no_size(name):
    with pytest.raises(SettingsError, match=f"TOKENPORT_{name.upper()}.*1 or more"):
        settings(**{name: "0"})


@pytest.mark.parametrize("other", ["gpu_memory_utilization", "kv_cache_memory_bytes", "num_gpu_blocks_override"])
@pytest.mark.parametrize("name", ["kv_cache_tokens", "max_concurrency"])
def test_two_sizes_are_refused_by_their_names(name, other):
    value = {"gpu_memory_utilization": "0.5", "kv_cache_memory_bytes": "1G", "num_gpu_blocks_override": "7"}[other]
    with pytest.raises(SettingsError) as refusal:
        settings(**{name: "4", other: value})
    assert f"TOKENPORT_{name.upper()} ({name}) and TOKENPORT_{other.upper()} ({other})" in str(refusal.value)


def test_tokens_and_sequences_together_are_refused():
    with pytest.raises(SettingsError, match="keep one"):
        settings(kv_cache_tokens="4096", max_concurrency="2")


def test_a_length_that_follows_the_cache_cannot_size_it():
    with pytest.raises(SettingsError, match=r"max_model_len=auto.*write a number"):
        settings(max_concurrency="2", max_model_len="auto")
