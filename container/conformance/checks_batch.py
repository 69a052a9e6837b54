"""Batch transform: what the container says it can do, and JSON lines in, JSON lines out."""

import json
from typing import Any

from container.conformance.check import BATCH, OWN, Check, expect
from container.conformance.client import JSON_LINES
from container.conformance.requests import chat, completion, inputs
from container.conformance.server import Server

_STRATEGIES = ("MULTI_RECORD", "SINGLE_RECORD")


def _execution_parameters(server: Server) -> str:
    answer = server.client.get("/execution-parameters")
    expect(answer.status_code == 200, f"{answer.status_code}")
    told = answer.json()
    expect(isinstance(told["MaxConcurrentTransforms"], int) and told["MaxConcurrentTransforms"] >= 1, f"{told}")
    expect(told["BatchStrategy"] in _STRATEGIES, f"BatchStrategy is {told['BatchStrategy']!r}")
    expect(isinstance(told["MaxPayloadInMB"], int) and 0 < told["MaxPayloadInMB"] <= 100, f"{told}")
    return json.dumps(told)


def _lines(server: Server) -> str:
    wrong: Any = {"nonsense": 1}
    sent = [json.dumps(body) for body in (chat(4), wrong, inputs(4))] + ["{not JSON", json.dumps(completion(4))]
    answer = server.client.invoke("\n".join(sent).encode(), {"Content-Type": JSON_LINES, "Accept": JSON_LINES})
    expect(answer.status_code == 200, f"{answer.status_code}: {answer.text[:160]}")
    expect(answer.headers.get("content-type", "").startswith(JSON_LINES), f"Content-Type {answer.headers.get('content-type')}")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    expect(len(lines) == len(sent), f"{len(lines)} lines for {len(sent)}")
    expect("message" in lines[0]["choices"][0], f"line 1, a chat, got {answer.text.splitlines()[0][:80]}")
    expect("generated_text" in lines[2], f"line 3, with inputs, got {answer.text.splitlines()[2][:80]}")
    expect("text" in lines[4]["choices"][0], f"line 5, a completion, got {answer.text.splitlines()[4][:80]}")
    expect(all("error" in lines[number] for number in (1, 3)), "the wrong lines 2 and 4 have no error")
    return "5 lines, 2 of them wrong: 5 results in order, 2 of them errors"


CHECKS = (
    Check("execution-parameters", "GET /execution-parameters says how to batch", BATCH, _execution_parameters),
    Check("batch-lines", "JSON lines give one result a line, in order; a wrong line does not lose the others", OWN, _lines),
)
