"""A batch: JSON lines in, one result line for each line that is not blank, in the same order.

A line is a body as `/invocations` takes it, and its result the answer or the error that it would have had there by itself. The results go
out together when the last is there: batch transform and asynchronous inference take no chunked answers.
"""

import asyncio
import json
from typing import Any

from serving.api.answering import answer
from serving.api.errors import as_request_error
from serving.api.negotiation import negotiate
from serving.api.schemas import parse_json_object
from serving.engine.interface import Engine
from serving.errors import InvalidRequest, NotAcceptable

_MAX_LINES = 100_000
"""An error is a hundred times as long as the shortest wrong line: without a limit, a small body would make a huge answer."""


async def answer_batch(engine: Engine, raw: bytes, request_id: str) -> bytes:
    """The result lines of the batch `raw`. No more lines are asked for at once than the engine runs together. Cancelling aborts all.

    Raises:
        InvalidRequest: there is no line, or there are too many.
    """
    if (num_lines := raw.count(b"\n")) > _MAX_LINES:
        raise InvalidRequest(f"the batch has {num_lines} lines, and no more than {_MAX_LINES} are taken: send several batches")
    lines = [line for line in raw.split(b"\n") if line.strip()]
    if not lines:
        raise InvalidRequest("the batch is empty: send one JSON object a line")
    results = [b""] * len(lines)
    # The workers share one iterator: each takes the next line when it has answered its last.
    numbered = iter(enumerate(lines))

    async def work() -> None:
        for index, line in numbered:
            results[index] = await _answer_line(engine, line, index, request_id)
            # A line that is refused waits for nothing: thousands of them must not hold up everybody else.
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as workers:
        for _ in range(min(len(lines), max(1, engine.capacity.num_sequences))):
            workers.create_task(work())
    return b"\n".join(results) + b"\n"


def refuse_other_than_lines(accept: str) -> None:
    """Raise NotAcceptable where `accept` would not have JSON lines. `application/json` stands for whatever is usual."""
    form, _ = negotiate(accept, stream=False)
    if form == "text":
        raise NotAcceptable("a batch is answered with application/jsonlines: accept that")


async def _answer_line(engine: Engine, line: bytes, index: int, request_id: str) -> bytes:
    try:
        body = parse_json_object(line, "the line")
        _refuse_stream(body)
        answered = await answer(engine, body, f"{request_id}-{index}")
        assert isinstance(answered, bytes)  # noqa: S101 - only streams come in chunks
        return answered
    except Exception as error:
        # Whatever goes wrong here, the other lines have been paid for.
        return json.dumps(as_request_error(error, f"line {index + 1} of a batch").body()).encode()


def _refuse_stream(body: dict[str, Any]) -> None:
    if body.get("stream"):
        raise InvalidRequest("stream: a line of a batch is answered whole: leave it out", param="stream")
