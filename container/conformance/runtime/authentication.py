"""Who calls. Refuses what carries no credential or one that is malformed or expired; never checks that a signature is right.

SigV4: in the Authorization header or in a pre-signed query. Bearer tokens, on the OpenAI path: "sagemaker-api-key-" and the base64
of a URL pre-signed for the action CallWithBearerToken, as the SageMaker SDK makes them (sagemaker-core, token_generator.py).
"""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from container.conformance.runtime.errors import bad_bearer_token, incomplete_signature, missing_token, no_bearer_token, wrong_service
from container.conformance.runtime.scope import Scope

SERVICE = "sagemaker"
_AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 +Credential=([^,\s]+), *SignedHeaders=[^,\s]+, *Signature=[0-9a-f]{64}")
_CREDENTIAL = re.compile(r"[^/]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
_TOKEN_PREFIX = "sagemaker-api-key-"  # noqa: S105 - what every token begins with
_LONGEST_TOKEN_S = 43200  # 12 hours, the OpenAI path's documentation


def scope_of_signature(headers: Mapping[str, str], query: Mapping[str, str]) -> Scope:
    """The scope a signed request names.

    Raises:
        PlatformError: unsigned (403), malformed (400), or signed for another service (403).
    """
    authorization = headers.get("authorization")
    if authorization is not None:
        match = _AUTHORIZATION.fullmatch(authorization)
        if match is None:
            raise incomplete_signature("it must name Credential, SignedHeaders and Signature")
        credential = match[1]
    elif query.get("X-Amz-Algorithm") == "AWS4-HMAC-SHA256" and "X-Amz-Signature" in query:
        credential = query.get("X-Amz-Credential", "")
    else:
        raise missing_token()
    parts = _CREDENTIAL.fullmatch(credential)
    if parts is None:
        raise incomplete_signature("Credential must be KEY/YYYYMMDD/REGION/sagemaker/aws4_request")
    if parts["service"] != SERVICE:
        raise wrong_service()
    return Scope(region=parts["region"])


def scope_of_bearer(headers: Mapping[str, str], now: datetime | None = None) -> Scope:
    """The scope a bearer token names.

    Raises:
        PlatformError: no bearer token (401), one that is malformed, for something else, or expired (403).
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise no_bearer_token()
    query = _presigned_query(token.strip())
    if query.get("Action") != "CallWithBearerToken":
        raise bad_bearer_token("its action is not CallWithBearerToken")
    credential = _CREDENTIAL.fullmatch(query.get("X-Amz-Credential", ""))
    if credential is None or credential["service"] != SERVICE or not query.get("X-Amz-Signature"):
        raise bad_bearer_token("it is not signed for sagemaker")
    if (now or datetime.now(UTC)) > _expiry(query):
        raise bad_bearer_token("it has expired")
    return Scope(region=credential["region"])


def _presigned_query(token: str) -> dict[str, str]:
    if not token.startswith(_TOKEN_PREFIX):
        raise bad_bearer_token(f"it does not begin with {_TOKEN_PREFIX}")
    try:
        url = base64.b64decode(token.removeprefix(_TOKEN_PREFIX), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise bad_bearer_token("it is not base64 of a URL") from error
    return {name: values[0] for name, values in parse_qs(url.partition("?")[2]).items()}


def _expiry(query: Mapping[str, str]) -> datetime:
    try:
        signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return signed + timedelta(seconds=min(int(query["X-Amz-Expires"]), _LONGEST_TOKEN_S))
    except (KeyError, ValueError) as error:
        raise bad_bearer_token("X-Amz-Date or X-Amz-Expires is missing or malformed") from error
