"""Bodies as each route takes them."""

import pytest

from benchmarks.client.bodies import body_of, check_prompts, with_history
from benchmarks.client.capabilities import Capabilities
from benchmarks.client.target import TargetSpec
from benchmarks.load.plan import Plan, Request
from serving.errors import BenchmarkError

URL = "http://127.0.0.1:1"
MESSAGE = {"role": "user", "content": "hello"}
STREAMED = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


def body(spec: TargetSpec, prompt, capabilities: Capabilities | None = None, **request):
    made = Request(0, prompt, 8, **request)
    return body_of(made, prompt, spec, capabilities or Capabilities(model="m"))


def test_completions():
    spec = TargetSpec("completions", URL)
    assert body(spec, "hello") == {"model": "m", "prompt": "hello", "max_tokens": 8, "ignore_eos": True} | STREAMED
    assert body(spec, (1, 2))["prompt"] == (1, 2)
    assert "ignore_eos" not in body(spec, "hello", ignore_eos=False)


def test_a_text_is_what_the_user_says_in_chat():
    spec = TargetSpec("chat", URL)
    assert body(spec, "hello")["messages"] == [MESSAGE] == body(spec, (MESSAGE,))["messages"]
    assert "prompt" not in body(spec, "hello")


def test_invocations_take_either():
    assert "prompt" in body(TargetSpec("invocations", URL), "hello")
    assert "messages" in body(TargetSpec("invocations", URL, chat_bodies=True), "hello")


def test_invoke_endpoint_is_not_streamed():
    assert body(TargetSpec("sagemaker", URL), "hello") == {"model": "m", "prompt": "hello", "max_tokens": 8, "ignore_eos": True}
    assert body(TargetSpec("sagemaker-stream", URL), "hello")["stream"] is True


def test_what_the_server_refuses_is_left_out_and_extra_fields_have_the_last_word():
    spec = TargetSpec("completions", URL, extra_body={"temperature": 0, "max_tokens": 9})
    nothing = Capabilities(accepts_stream_options=False, accepts_continuous_usage=False, accepts_ignore_eos=False)
    assert body(spec, "hello", nothing) == {"prompt": "hello", "max_tokens": 9, "stream": True, "temperature": 0}
    some = Capabilities(accepts_continuous_usage=False)
    assert body(spec, "hello", some)["stream_options"] == {"include_usage": True}


def test_a_conversation_grows_by_question_and_answer():
    chat, completions = TargetSpec("chat", URL), TargetSpec("completions", URL)
    assert with_history(None, "", "one", completions) == "one"
    assert with_history("one", " two", " three", completions) == "one two three"
    first = with_history(None, "", "one", chat)
    assert with_history(first, "two", ({"role": "user", "content": "three"},), chat) == (
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    )


@pytest.mark.parametrize(
    ("api", "request_", "said"),
    [
        ("chat", Request(3, (1, 2), 8), "request 3 has token ids"),
        ("completions", Request(3, (MESSAGE,), 8), "take --api chat"),
        ("completions", Request(3, (1, 2), 8, conversation=0), "conversation in token ids"),
    ],
)
def test_prompts_that_the_target_cannot_be_sent(api, request_, said):
    with pytest.raises(BenchmarkError, match=said):
        check_prompts(Plan((request_,)), TargetSpec(api, URL))
