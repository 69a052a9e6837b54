"""Which form an answer takes: from the `Accept` header and the body's `stream`, of which the body's word weighs more.

OpenAI's clients accept `application/json` even where they ask for a stream, so that type stands for whatever is usual.
"""

from typing import Literal

from serving.errors import NotAcceptable

Form = Literal["json", "sse", "jsonlines", "text"]

JSON_LINES_TYPES = ("application/jsonlines", "application/jsonl", "application/x-ndjson")
"""The first is SageMaker's and what is answered with, the others are the same by other names."""
_TYPES: dict[str, Form] = {
    "application/json": "json",
    "text/event-stream": "sse",
    "text/plain": "text",
    **dict.fromkeys(JSON_LINES_TYPES, "jsonlines"),
}
_WILDCARDS: dict[str, Form] = {"*/*": "json", "application/*": "json", "text/*": "text"}
_SUPPORTED = "application/json, text/event-stream, application/jsonlines or text/plain"


def negotiate(accept: str, stream: object) -> tuple[Form, bool]:
    """The form, and whether the answer is streamed. `stream` is the body's field, None where it has none.

    Raises:
        NotAcceptable: nothing in `accept` can be answered with.
    """
    forms = _accepted(accept)
    if not forms:
        raise NotAcceptable(f"Accept: {accept[:200]!r} is not supported: accept {_SUPPORTED}")
    if stream is None:
        return forms[0], forms[0] == "sse"
    if stream is not True:
        whole = [form for form in forms if form != "sse"]
        if not whole:
            raise NotAcceptable("Accept asks for text/event-stream and the body says stream: false; keep one")
        return whole[0], False
    return ("sse" if forms[0] == "json" else forms[0]), True


def _accepted(accept: str) -> list[Form]:
    """The forms that `accept` names, best first: by q, then by order."""
    if not accept.strip():
        return ["json"]
    ranked: list[tuple[float, Form]] = []
    for item in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        form = _TYPES.get(media_type) or _WILDCARDS.get(media_type)
        quality = _quality(parameters)
        if form is not None and quality > 0:
            ranked.append((quality, form))
    return [form for _, form in sorted(ranked, key=lambda pair: -pair[0])]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
