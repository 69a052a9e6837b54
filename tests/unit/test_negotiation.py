import pytest

from serving.api.negotiation import negotiate
from serving.errors import NotAcceptable


@pytest.mark.parametrize(
    ("accept", "stream", "form", "is_stream"),
    [
        ("", None, "json", False),
        ("*/*", None, "json", False),
        ("application/json", None, "json", False),
        ("application/json", True, "sse", True),  # what OpenAI's clients send
        ("", True, "sse", True),
        ("text/event-stream", None, "sse", True),
        ("text/event-stream", True, "sse", True),
        ("text/event-stream, application/json", False, "json", False),
        ("application/jsonlines", True, "jsonlines", True),
        ("application/x-ndjson", True, "jsonlines", True),
        ("application/jsonlines", None, "jsonlines", False),
        ("text/plain", True, "text", True),
        ("text/plain; charset=utf-8", None, "text", False),
        ("text/*", False, "text", False),
        ("image/png, application/json;q=0.5", None, "json", False),
        ("application/json;q=0.1, text/plain;q=0.9", None, "text", False),
        ("APPLICATION/JSON", None, "json", False),
        ("text/plain;q=0, application/json", None, "json", False),
    ],
)
def test_accept_and_stream_choose_the_form(accept, stream, form, is_stream):
    assert negotiate(accept, stream) == (form, is_stream)


@pytest.mark.parametrize("accept", ["image/png", "application/xml, text/html", "application/json;q=0", "application/json;q=nonsense"])
def test_what_cannot_be_answered_with_is_refused_with_what_can(accept):
    with pytest.raises(NotAcceptable, match="text/event-stream"):
        negotiate(accept, None)


def test_a_stream_that_the_body_forbids_is_a_contradiction():
    with pytest.raises(NotAcceptable, match="stream: false"):
        negotiate("text/event-stream", False)


def test_a_stream_field_of_a_wrong_type_is_left_to_the_validation_of_the_body():
    assert negotiate("application/json", "yes") == ("json", False)
