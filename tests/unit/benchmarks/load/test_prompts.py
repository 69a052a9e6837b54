"""Prompts: of exactly so many tokens as the server counts, alike in nothing but what is asked to be shared."""

import numpy as np
import pytest

from benchmarks.load.prompts import FIRST_BLOCK_TOKENS, PromptMaker
from benchmarks.load.text_source import TEXT_FILE, TextSource, shipped_text
from benchmarks.load.tokenizers import CHARACTERS_PER_TOKEN, EstimatingTokenizer
from serving.errors import BenchmarkError

LENGTHS = (30, 31, 64, 127, 500)


def maker(tokenizer, form, part="measured", seed=1):
    return PromptMaker(tokenizer, form, shipped_text(part), np.random.default_rng(seed))


def counted(tokenizer, prompt):
    """As a server counts it."""
    if isinstance(prompt, str):
        return len(tokenizer.encode(prompt))
    return len(prompt) if isinstance(prompt[0], int) else tokenizer.count_chat(prompt)


@pytest.mark.parametrize("form", ["token_ids", "text", "messages"])
@pytest.mark.parametrize("num_tokens", LENGTHS)
def test_a_prompt_has_exactly_so_many_tokens(tokenizer, form, num_tokens):
    making = maker(tokenizer, form)
    assert {counted(tokenizer, making.prompt(num_tokens)) for _ in range(20)} == {num_tokens}
    assert making.is_exact


@pytest.mark.parametrize("form", ["token_ids", "text"])
def test_the_token_that_a_tokenizer_puts_first_is_counted_and_sent_once(bos_tokenizer, form):
    making = maker(bos_tokenizer, form)
    prompts = [making.prompt(40) for _ in range(20)]
    assert {counted(bos_tokenizer, prompt) for prompt in prompts} == {40}
    ids = [prompt if form == "token_ids" else bos_tokenizer.encode(prompt) for prompt in prompts]
    assert all(prompt.count(0) == 1 and prompt[0] == 0 for prompt in ids)


def test_the_smallest_prompts_can_be_made(tokenizer, bos_tokenizer):
    for counting, form in ((tokenizer, "text"), (bos_tokenizer, "text"), (tokenizer, "messages"), (bos_tokenizer, "token_ids")):
        making = maker(counting, form)
        least = making.least_tokens()
        assert counted(counting, making.prompt(least)) == least
    assert maker(tokenizer, "text").least_tokens() == 1
    assert maker(bos_tokenizer, "text").least_tokens() == 2


def test_no_two_prompts_share_a_first_block(tokenizer, bos_tokenizer):
    for counting in (tokenizer, bos_tokenizer):
        making = maker(counting, "token_ids")
        beginnings = [making.prompt(FIRST_BLOCK_TOKENS + 4)[:FIRST_BLOCK_TOKENS] for _ in range(3000)]
        assert len(set(beginnings)) == 3000


def test_warm_up_prompts_begin_as_no_measured_one_can(tokenizer):
    """Whatever is drawn: no three words that begin a warm-up prompt stand together anywhere in the measured part."""
    words = TEXT_FILE.read_text().split("\n", 1)[1].split()
    measured = words[: len(words) - len(words) // 8]
    together = set(zip(measured, measured[1:] + measured[:1], measured[2:] + measured[:2], strict=True))
    making = maker(tokenizer, "text", part="warm-up")
    beginnings = {tuple(making.prompt(64).split()[:3]) for _ in range(500)}
    assert not beginnings & together
    assert {tuple(maker(tokenizer, "text", seed=seed).prompt(64).split()[:3]) for seed in range(50)} <= together


def test_a_long_prompt_wraps_around_the_text(tokenizer):
    assert len(maker(tokenizer, "token_ids").prompt(30_000)) == 30_000


@pytest.mark.parametrize("form", ["token_ids", "text"])
def test_a_shared_prefix_is_shared_to_its_last_token_and_no_further(tokenizer, form):
    making = maker(tokenizer, form)
    prefix = making.prefix(100)
    prompts = [making.prompt(160, prefix) for _ in range(50)]
    ids = [prompt if form == "token_ids" else tuple(tokenizer.encode(prompt)) for prompt in prompts]
    assert {len(prompt) for prompt in ids} == {160}
    assert {prompt[:100] for prompt in ids} == {tuple(tokenizer.encode(prefix.text))}
    assert len({prompt[100 : 100 + FIRST_BLOCK_TOKENS] for prompt in ids}) == 50


def test_a_shared_prefix_in_chat_leaves_the_total_exact(tokenizer):
    making = maker(tokenizer, "messages")
    prefix = making.prefix(50)
    prompts = [making.prompt(120, prefix) for _ in range(20)]
    assert {tokenizer.count_chat(prompt) for prompt in prompts} == {120}
    assert all(prompt[0]["content"].startswith(prefix.text + " ") for prompt in prompts)


def test_a_later_turns_text_is_of_the_length_without_the_template(tokenizer):
    (message,) = maker(tokenizer, "messages").later_turn(33)
    assert message["role"] == "user"
    assert len(tokenizer.encode(message["content"])) == 33


def test_a_later_turn_in_plain_text_adds_its_length_to_what_stands_before(tokenizer):
    said = maker(tokenizer, "text").later_turn(33)
    assert len(tokenizer.encode("Down, down, down" + said)) == len(tokenizer.encode("Down, down, down")) + 33


def test_blocks_add_up(tokenizer):
    making = maker(tokenizer, "text")
    blocks = [making.block(64, is_first=place == 0) for place in range(4)]
    assert len(tokenizer.encode(" ".join(blocks))) == 4 * 64


def test_without_a_template_chat_sizes_are_estimates(bos_tokenizer):
    making = maker(bos_tokenizer, "messages")
    assert not making.is_exact
    (message,) = making.prompt(40)
    assert len(bos_tokenizer.encode(message["content"])) == 41  # the one that stands first is the server's, as the template is


def test_without_a_tokenizer_sizes_are_estimated_by_characters():
    making = maker(EstimatingTokenizer(), "text")
    assert not making.is_exact
    prompt = making.prompt(50)
    assert 49 * CHARACTERS_PER_TOKEN < len(prompt) <= 50 * CHARACTERS_PER_TOKEN
    assert making.prompt(50) != prompt


def test_a_tokenizer_whose_texts_never_come_back_is_told():
    class Doubling(EstimatingTokenizer):
        def encode(self, text):
            return [identity for identity in super().encode(text) for _ in range(2)]

    with pytest.raises(BenchmarkError, match=r"no text of exactly 31 tokens could be made with an estimate"):
        maker(Doubling(), "text").prompt(31)


def test_few_places_to_begin_at_are_told_of_when_they_are_used_up():
    source = TextSource(("one", "two", "three", "four", "five", "six", "seven", "eight"), "warm-up")
    making = PromptMaker(EstimatingTokenizer(), "token_ids", source, np.random.default_rng(0))
    making.prompt(20)
    with pytest.raises(BenchmarkError, match="no new prompt could be made after 1: ask for fewer requests"):
        making.prompt(20)


def test_the_text_says_what_it_is_in_a_line_of_its_own():
    first = TEXT_FILE.read_text().split("\n", 1)[0]
    assert "Lewis Carroll, 1865; in the public domain" in first
    assert "public domain" not in shipped_text("measured").draw(30_000, np.random.default_rng(0))
