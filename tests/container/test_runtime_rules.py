"""What the runtime decides by itself: where streams are cut, which headers pass, who may call, how many."""

import base64
import json
import socket
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.loaders import Loader
from hypothesis import given
from hypothesis import strategies as st

from container.conformance.runtime.__main__ import main
from container.conformance.runtime.authentication import scope_of_bearer, scope_of_signature
from container.conformance.runtime.errors import PlatformError, model_error
from container.conformance.runtime.headers import INVOKE_RULES, STREAM_RULES, Rule, to_client, to_container, to_stream_client
from container.conformance.runtime.scope import Scope
from container.conformance.runtime.splitting import Resplitter
from container.conformance.runtime.throttle import Throttle

PREFIX = "sagemaker-api-key-"
MODEL = Loader().load_service_model("sagemaker-runtime", "service-2")


@given(st.lists(st.binary(max_size=3000), max_size=20), st.integers())
def test_resplitting_loses_and_reorders_nothing(chunks, seed):
    splitter = Resplitter(Random(seed))
    parts = [part for chunk in chunks for part in splitter.feed(chunk)] + splitter.flush()
    assert b"".join(parts) == b"".join(chunks)
    assert all(parts)
    assert not splitter.is_holding


def test_resplitting_cuts_chunks_merges_them_and_repeats_itself_with_the_same_seed():
    chunks = [b"data: %03d\n\n" % number for number in range(300)]

    def split(seed):
        splitter = Resplitter(Random(seed))
        return [part for chunk in chunks for part in splitter.feed(chunk)] + splitter.flush()

    parts = split(1)
    assert parts == split(1) != split(2)
    assert any(len(part) > len(chunks[0]) for part in parts)
    assert sum(len(part) < len(chunks[0]) for part in parts) > len(parts) / 2
    assert sum(part in chunks for part in parts) < len(parts) / 3


@pytest.mark.parametrize(("operation", "rules"), [("InvokeEndpoint", INVOKE_RULES), ("InvokeEndpointWithResponseStream", STREAM_RULES)])
def test_the_rules_name_every_header_of_botocores_model_with_its_limit(operation, rules):
    def declared(member):
        return member["locationName"], MODEL["shapes"][member["shape"]]["max"]

    members = MODEL["shapes"][f"{operation}Input"]["members"]
    expected = {name[0].lower() + name[1:]: declared(member) for name, member in members.items() if member.get("location") == "header"}
    assert {rule.member: (rule.header, rule.longest) for rule in rules} == expected


@pytest.mark.parametrize("rule", [*INVOKE_RULES, *STREAM_RULES], ids=lambda rule: rule.header)
def test_a_value_may_be_as_long_as_the_rule_says_and_no_longer(rule: Rule):
    passed = to_container((rule,), {rule.header: "a" * rule.longest})
    assert passed == ({} if rule.container_header is None else {rule.container_header: "a" * rule.longest})
    with pytest.raises(PlatformError) as refusal:
        to_container((rule,), {rule.header: "a" * (rule.longest + 1)})
    assert (refusal.value.status, refusal.value.code) == (400, "ValidationError")
    assert f"at '{rule.member}' failed to satisfy constraint" in refusal.value.body["Message"]


@pytest.mark.parametrize(
    ("rules", "header", "value"),
    [
        (INVOKE_RULES, "X-Amzn-SageMaker-Custom-Attributes", "naïve"),
        (INVOKE_RULES, "X-Amzn-SageMaker-Inference-Id", " padded"),
        (INVOKE_RULES, "X-Amzn-SageMaker-Session-Id", "OLD_SESSION"),
        (STREAM_RULES, "X-Amzn-SageMaker-Session-Id", "NEW_SESSION"),
    ],
)
def test_a_value_outside_the_pattern_is_refused(rules, header, value):
    with pytest.raises(PlatformError, match="ValidationError"):
        to_container(rules, {header: value})


def test_sensitive_values_are_not_repeated_in_errors():
    with pytest.raises(PlatformError) as refusal:
        to_container(INVOKE_RULES, {"X-Amzn-SageMaker-Custom-Attributes": "sécret"})
    assert "cret" not in json.dumps(refusal.value.body)


def test_answers_keep_only_the_headers_of_the_model():
    answered = {
        "Content-Type": "application/json",
        "X-Amzn-SageMaker-Custom-Attributes": "trace=1",
        "X-Amzn-SageMaker-New-Session-Id": "s1; Expires=2030-01-01T00:00:00Z",
        "X-Amzn-SageMaker-Closed-Session-Id": "s0",
        "Set-Cookie": "a=b",
        "Server": "uvicorn",
    }
    kept = {name: value for name, value in answered.items() if name not in ("Set-Cookie", "Server")}
    assert to_client(answered, "blue") == kept | {"x-Amzn-Invoked-Production-Variant": "blue"}
    assert to_stream_client(answered, "blue") == {
        "x-Amzn-Invoked-Production-Variant": "blue",
        "X-Amzn-SageMaker-Content-Type": "application/json",
        "X-Amzn-SageMaker-Custom-Attributes": "trace=1",
    }


def signed(credential: str) -> dict[str, str]:
    return {"authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-date, Signature={'0' * 64}"}


def test_a_signature_names_its_region():
    assert scope_of_signature(signed("AKID/20260101/eu-west-1/sagemaker/aws4_request"), {}) == Scope("eu-west-1")
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": "A/20260101/us-east-2/sagemaker/aws4_request",
        "X-Amz-Signature": "0",
    }
    assert scope_of_signature({}, query) == Scope("us-east-2")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 403, "MissingAuthenticationTokenException"),
        ({"authorization": "Bearer x"}, 400, "IncompleteSignatureException"),
        (signed("AKID"), 400, "IncompleteSignatureException"),
        (signed("AKID/20260101/eu-west-1/s3/aws4_request"), 403, "InvalidSignatureException"),
    ],
)
def test_a_request_that_is_not_signed_for_sagemaker_is_refused(headers, status, code):
    with pytest.raises(PlatformError) as refusal:
        scope_of_signature(headers, {})
    assert (refusal.value.status, refusal.value.code) == (status, code)


def bearer(
    service: str = "sagemaker", action: str = "CallWithBearerToken", expires_s: int = 900, prefix: str = "sagemaker-api-key-"
) -> str:
    """A token as the SageMaker SDK makes it, signed by botocore."""
    request = AWSRequest("POST", "https://sagemaker.amazonaws.com/", headers={"host": "sagemaker.amazonaws.com"}, params={"Action": action})
    SigV4QueryAuth(Credentials("AKID", "secret"), service, "us-west-2", expires=expires_s).add_auth(request)
    return prefix + base64.b64encode((request.url.removeprefix("https://") + "&Version=1").encode()).decode()


def test_the_sdks_bearer_token_is_accepted_until_it_expires():
    headers = {"authorization": f"Bearer {bearer(expires_s=600)}"}
    assert scope_of_bearer(headers) == Scope("us-west-2")
    with pytest.raises(PlatformError) as refusal:
        scope_of_bearer(headers, now=datetime.now(UTC) + timedelta(seconds=700))
    assert refusal.value.status == 403
    assert "expired" in refusal.value.body["message"]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("", 401),
        ("Bearer ", 401),
        ("Basic eA==", 401),
        ("Bearer sk-anything", 403),
        ("Bearer sagemaker-api-key-***", 403),
        (f"Bearer {bearer(prefix='bedrock-api-key-')}", 403),
        (f"Bearer {bearer(service='bedrock')}", 403),
        (f"Bearer {bearer(action='Other')}", 403),
        ("Bearer sagemaker-api-key-" + base64.b64encode(b"x/?Action=CallWithBearerToken").decode(), 403),
    ],
)
def test_no_bearer_token_is_a_401_and_a_bad_one_a_403(authorization, status):
    with pytest.raises(PlatformError) as refusal:
        scope_of_bearer({"authorization": authorization} if authorization else {})
    assert refusal.value.status == status


def test_the_rate_limit_lets_a_seconds_worth_through_and_refills():
    now = 0.0
    throttle = Throttle(2, None, clock=lambda: now)

    def admitted() -> bool:
        try:
            with throttle.admitted():
                return True
        except PlatformError:
            return False

    assert [admitted() for _ in range(4)] == [True, True, False, False]
    now = 0.5
    assert [admitted() for _ in range(2)] == [True, False]
    now = 60.0
    assert [admitted() for _ in range(3)] == [True, True, False]


def test_a_long_answer_of_the_container_is_cut_in_the_original_message():
    body = model_error(500, "x" * 5000, "chat", Scope("eu-west-1")).body
    assert len(body["OriginalMessage"]) == MODEL["shapes"]["Message"]["max"]
    assert body["LogStreamArn"] == "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/Endpoints/chat"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "--target"),
        (["--target", "localhost:8080"], "http://host:port"),
        (["--target", "http://x", "--throttle-rps", "0"], "above zero"),
        (["--target", "http://x", "--invoke-timeout-s", "nan"], "above zero"),
        (["--target", "http://x", "--max-body-bytes", "1.5"], "whole number"),
        (["--target", "http://x", "--endpoint-name", "under_score"], "letters, digits and hyphens"),
        (["--target", "http://x", "--split", "3"], "--split"),
    ],
)
def test_a_wrong_argument_is_named(capsys, arguments, word):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--port", "0"])
    assert ended.value.code == 2
    assert word in capsys.readouterr().err


def test_a_taken_port_is_said_in_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--target", "http://127.0.0.1:9", "--port", str(taken.getsockname()[1])]) == 1
    assert capsys.readouterr().err.count("\n") == 1
