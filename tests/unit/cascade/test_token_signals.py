from math import exp, inf, log

import pytest

from serving.cascade.token_signals import LEAST_LOGPROB, NAMES, token_signals

SURE = (log(0.9), (log(0.9), log(0.1)))
UNSURE = (log(0.5), (log(0.5), log(0.3)))


def test_signals_by_hand():
    signals = token_signals([SURE, UNSURE])
    assert tuple(signals) == NAMES
    assert signals["num_tokens"] == 2
    assert signals["logprob_mean"] == pytest.approx((log(0.9) + log(0.5)) / 2)
    assert signals["logprob_min"] == pytest.approx(log(0.5))
    assert signals["logprob_q10"] == pytest.approx(log(0.5) + 0.1 * (log(0.9) - log(0.5)))
    assert signals["logprob_corrected_sum"] == pytest.approx((log(0.9) + log(0.5)) / 2**0.6)
    assert signals["margin_mean"] == pytest.approx((0.8 + 0.2) / 2)
    assert signals["margin_min"] == pytest.approx(0.2)
    assert signals["margin_q10"] == pytest.approx(0.2 + 0.1 * 0.6)
    sure, unsure = -(0.9 * log(0.9) + 0.1 * log(0.1)), -(0.5 * log(0.5) + 0.3 * log(0.3) + 0.2 * log(0.2))
    assert signals["entropy_mean"] == pytest.approx((sure + unsure) / 2)
    assert signals["entropy_max"] == pytest.approx(unsure)


def test_the_margin_is_of_the_most_probable_tokens_whichever_was_drawn():
    drawn = (log(0.01), (log(0.2), log(0.7), log(0.01)))
    assert token_signals([drawn])["margin_mean"] == pytest.approx(0.5)


def test_a_token_that_never_would_have_been_said_is_very_improbable_not_infinitely():
    signals = token_signals([(-inf, (0.0, -inf))])
    assert signals["logprob_min"] == LEAST_LOGPROB
    assert signals["margin_mean"] == pytest.approx(1 - exp(LEAST_LOGPROB))


def test_a_long_answer_is_not_taken_for_an_unsure_one():
    short, long = token_signals([SURE] * 4), token_signals([SURE] * 32)
    assert long["margin_mean"] == pytest.approx(short["margin_mean"])
    assert long["logprob_q10"] == pytest.approx(short["logprob_q10"])


@pytest.mark.parametrize("alternatives", [(), (log(0.9),)])
def test_without_two_alternatives_it_says_what_to_ask_the_engine_for(alternatives):
    with pytest.raises(ValueError, match=r"token 1 has .* ask the engine for top_logprobs 2"):
        token_signals([SURE, (log(0.9), alternatives)])


def test_without_tokens_there_are_no_signals():
    with pytest.raises(ValueError, match="without tokens"):
        token_signals([])
