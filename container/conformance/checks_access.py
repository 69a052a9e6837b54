"""What can be reached: metrics, nothing administrative, and with keys set nothing but /ping without one."""

from collections.abc import Iterator

import httpx
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect

from container.conformance.check import METRICS, OWN, Check, Failed, Skipped, expect
from container.conformance.client import CUSTOM_ATTRIBUTES, Client
from container.conformance.requests import chat
from container.conformance.server import Server

API_KEY = "conformance-key"

_ADMINISTRATIVE = (
    ("POST", "/sleep"),
    ("POST", "/wake_up"),
    ("GET", "/is_sleeping"),
    ("POST", "/collective_rpc"),
    ("POST", "/reset_prefix_cache"),
    ("POST", "/reset_mm_cache"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("POST", "/abort_requests"),
    ("POST", "/scale_elastic_ep"),
    ("POST", "/is_scaling_elastic_ep"),
    ("POST", "/init_weight_transfer_engine"),
    ("POST", "/update_weights"),
    ("POST", "/start_profile"),
    ("POST", "/stop_profile"),
    ("GET", "/server_info"),
    ("POST", "/server_control"),
)
_CLOSED = (401, 403, 404, 405)
_COVERED = (
    ("POST", "/invocations"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
    ("GET", "/metrics"),
    ("GET", "/execution-parameters"),
    ("GET", "/adapters"),
    ("POST", "/adapters"),
    ("DELETE", "/adapters/x"),
    ("POST", "/tokenize"),
    ("GET", "/version"),
    ("GET", "/openapi.json"),
    ("GET", "/no-such-route"),
)


def _metrics(server: Server) -> str:
    answer = server.client.get("/metrics")
    expect(answer.status_code == 200, f"{answer.status_code}")
    families = list(text_string_to_metric_families(answer.text))
    expect(len(families) >= 5, f"{len(families)} metrics")
    return f"{len(families)} metrics in Prometheus' format on the same port"


def _nothing_administrative(server: Server) -> str:
    reached = []
    for method, path in _ADMINISTRATIVE:
        status = server.client.http.request(method, path, content=b"{}", headers=server.client.headers()).status_code
        if status not in _CLOSED:
            reached.append(f"{method} {path} ({status})")
    expect(not reached, f"reachable: {', '.join(reached)}")
    return f"{len(_ADMINISTRATIVE)} routes of vLLM's, none reachable"


def _no_rerouting(server: Server) -> str:
    tokens = server.client.invoke(chat(1), {CUSTOM_ATTRIBUTES: "route=/tokenize"})
    if tokens.status_code == 200:
        expect("choices" in tokens.json(), "route=/tokenize in Custom-Attributes leads /invocations to another route")
    for path in ("/v1/load_lora_adapter", "/sleep"):
        answer = server.client.invoke({"lora_name": "x", "lora_path": "/no-such-folder"}, {CUSTOM_ATTRIBUTES: f"route={path}"})
        expect("/no-such-folder" not in answer.text, f"route={path} was followed: {answer.text[:120]}")
        expect(answer.status_code >= 400, f"route={path} got {answer.status_code}")
    return "route= in Custom-Attributes leads nowhere"


def _without_key(server: Server) -> Iterator[str]:
    with Client(server.client.url) as bare:
        for method, path in _COVERED:
            for key in ({}, {"Authorization": "Bearer wrong"}):
                answer = bare.http.request(method, path, content=b"{}", headers=bare.headers(key))
                if answer.status_code != httpx.codes.UNAUTHORIZED:
                    yield f"{method} {path} ({answer.status_code})"
    try:
        with connect(f"ws{server.client.url.removeprefix('http')}/invocations-bidirectional-stream", proxy=None, open_timeout=10):
            yield "WebSocket"
    except InvalidHandshake:
        pass


def _api_key(server: Server) -> str:
    if not server.is_tokenport:
        raise Skipped("how another server is given its keys is not known")
    if server.client.api_key is None:
        raise Skipped("it was started without a key")
    open_routes = list(_without_key(server))
    expect(not open_routes, f"open without a key: {', '.join(dict.fromkeys(open_routes))}")
    expect(server.client.ping().status == 200, "/ping asks for a key, which SageMaker cannot give")
    answer = server.client.invoke(chat(1))
    if answer.status_code != 200:
        raise Failed(f"with the key: {answer.status_code}")
    return f"{len(_COVERED)} routes and the WebSocket are 401 without it, /ping is open"


CHECKS = (
    Check("metrics", "Metrics are on the same port, for SageMaker to scrape", METRICS, _metrics),
    Check("no-administration", "No administrative route is reachable", OWN, _nothing_administrative),
    Check("no-rerouting", "/invocations cannot be led to another route", OWN, _no_rerouting),
)
KEY_CHECKS = (Check("api-key", "An API key covers every route but /ping", OWN, _api_key),)
