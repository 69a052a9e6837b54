"""Adapters as SageMaker's inference components manage them. That a bad one does no harm can be shown with any model."""

from container.conformance.check import STANDARDS, Check, expect
from container.conformance.requests import chat
from container.conformance.server import Server


def _listed(server: Server) -> str:
    answer = server.client.get("/adapters")
    expect(answer.status_code == 200, f"{answer.status_code}: {answer.text[:120]}")
    answer.json()
    return answer.text[:80]


def _bad_adapter(server: Server) -> str:
    answer = server.client.post("/adapters", {"name": "conformance", "src": "/opt/ml/model/no-such-adapter"})
    expect(400 <= answer.status_code < 500 and answer.status_code not in (404, 405), f"{answer.status_code}: {answer.text[:120]}")
    gone = server.client.http.delete("/adapters/conformance", headers=server.client.headers())
    expect(gone.status_code in (400, 404), f"deleting what was never loaded: {gone.status_code}")
    after = server.client.invoke(chat(1))
    expect(after.status_code == 200, f"after it a good request got {after.status_code}")
    return f"{answer.status_code}: {answer.text[:100]}"


CHECKS = (
    Check("adapters-listed", "GET /adapters lists what is loaded", STANDARDS, _listed),
    Check("adapter-refused", "A bad adapter is refused with a 4xx, and the server goes on", STANDARDS, _bad_adapter),
)
