"""S3 as this machine may reach it: the default credential chain, its region, its endpoint (AWS_ENDPOINT_URL); failures in one line.

A failure names the URI and what to do, never a credential: of botocore's errors only code and message of the service's answer are shown.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from serving.errors import ModelUnavailable
from serving.redaction import redact

NUM_CONNECTIONS = 16
_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 30.0
_NUM_ATTEMPTS = 4
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html"""
_LOGGERS = ("boto3", "botocore", "s3transfer", "urllib3")
_DENIED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem"})
_BAD_KEYS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidClientTokenId"}
)
_PERMISSIONS = "s3:ListBucket on the bucket and s3:GetObject on its objects"


@dataclass(frozen=True)
class Location:
    """`s3://bucket/key`; the key has no slash at its end, and is empty for a whole bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """Its last part."""
        return self.key.rsplit("/", 1)[-1] or self.bucket


class Unreachable(ModelUnavailable):
    """Nobody answered: what is in the cache may do instead."""


def parse(uri: str) -> Location:
    """`uri`, s3://bucket or s3://bucket/key. Raises ModelUnavailable."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    key = key.rstrip("/")
    # A folder "." or an empty one cannot be told from its parent on the disk.
    if not _BUCKET.fullmatch(bucket) or any(part in ("", ".", "..") for part in key.split("/") if key) or not key.isprintable():
        raise ModelUnavailable(f"{redact('', uri)[:200]!r} is no S3 location: s3://bucket/prefix is")
    return Location(bucket, key)


def make_client() -> Any:
    """boto3's client for S3."""
    import boto3
    import botocore.config

    for name in _LOGGERS:
        # At DEBUG they write headers and answers, which hold signatures, session tokens and the role's keys.
        logging.getLogger(name).setLevel(logging.WARNING)
    config = botocore.config.Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": _NUM_ATTEMPTS},
        max_pool_connections=NUM_CONNECTIONS,
    )
    with told_of("S3"):
        # A session of its own: boto3's shared one would keep credentials beyond their time.
        return boto3.session.Session().client("s3", config=config)


@contextmanager
def told_of(what: object) -> Iterator[None]:
    """Turn what botocore raises into ModelUnavailable with the URI `what`."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        raise ModelUnavailable(_answer(error.response.get("Error", {}), what)) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError) as error:
        told = "give the endpoint's execution role, or this machine AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or an AWS_PROFILE, with"
        raise ModelUnavailable(f"{what}: no AWS credentials: {told} {_PERMISSIONS}") from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise Unreachable(
            f"{what}: cannot reach S3 ({_reason(error)}): check network, VPC endpoint, region and AWS_ENDPOINT_URL"
        ) from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise ModelUnavailable(f"{what}: {_reason(error)}") from error


def _answer(error: dict[str, str], what: object) -> str:
    code, message = error.get("Code", ""), " ".join(error.get("Message", "").split())
    if code == "NoSuchBucket":
        return f"{what}: there is no such bucket"
    if code in ("NoSuchKey", "404", "NotFound"):
        return f"{what}: there is no such object"
    if code in _DENIED:
        return f"{what}: access denied ({message}): the role or user needs {_PERMISSIONS}, and kms:Decrypt where they are encrypted"
    if code in _BAD_KEYS:
        return f"{what}: S3 does not accept the AWS credentials ({code}): renew them"
    if code in ("PreconditionFailed", "412"):
        return f"{what} changed while it was downloaded: start again"
    if code == "InvalidObjectState":
        return f"{what} is archived (Glacier): restore it first"
    return f"{what}: S3 answers {code}: {message}"


def _reason(error: Exception) -> str:
    return redact("", " ".join(str(error).split()))
