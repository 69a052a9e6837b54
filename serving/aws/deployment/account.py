"""The AWS account that this machine's credentials reach: sends calls, and turns what goes wrong into one line.

Nothing is sent before the first call, so that a description is made without credentials or a network.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.aws.deployment.description import Call, Lookup
from serving.errors import DeployError

_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 60.0
_NUM_ATTEMPTS = 5
_ABSENT = frozenset(
    {"ResourceNotFound", "ResourceNotFoundException", "ObjectNotFoundException", "NoSuchEntity", "NoSuchKey", "NoSuchBucket", "404"}
)
_ABSENT_MESSAGES = ("could not find", "does not exist", "cannot find", "no scalable target found")
"""SageMaker says so in the message of a ValidationException, which is also its code for everything else."""
_UNKNOWN_ROLE_MESSAGES = ("cannot be assumed", "could not assume role")
_BAD_KEYS = frozenset(
    {"InvalidClientTokenId", "UnrecognizedClientException", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId"}
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})


class Absent(DeployError):
    """There is no such thing."""


class RoleNotKnown(DeployError):
    """A role is not known everywhere yet: IAM takes seconds to spread a new one."""


class Account:
    """One region of one account. `session` is boto3's; its clients are made as they are needed."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._clients: dict[str, Any] = {}

    def send(self, call: Call) -> dict[str, Any]:
        """AWS's answer. Raises DeployError; `Absent` and `RoleNotKnown` where it is that."""
        with _told_of(call):
            operation = getattr(self._client(call.service), method_name(call.operation))
            answer: dict[str, Any] = operation(**call.parameters)
            return answer

    def attempt(self, call: Call) -> dict[str, Any] | None:
        """AWS's answer, None where what the call is about is not there."""
        try:
            return self.send(call)
        except Absent:
            return None

    def look(self, lookup: Lookup) -> Mapping[str, Any] | None:
        """What is looked for, None where it is not."""
        answer = self.attempt(lookup.call)
        return None if answer is None else lookup.part(answer)

    def listed(self, call: Call, field: str) -> Iterator[Any]:
        """The items of `field` over all pages of a listing."""
        with _told_of(call):
            paginator = self._client(call.service).get_paginator(method_name(call.operation))
            for page in paginator.paginate(**call.parameters):
                yield from page[field]

    def send_file(self, file: Path, bucket: str, key: str, metadata: Mapping[str, str]) -> None:
        """Put it into S3, in parts where it is large. Raises DeployError."""
        from boto3 import exceptions

        call = Call("s3", "PutObject", {"Bucket": bucket, "Key": key})
        with _told_of(call):
            try:
                self._client("s3").upload_file(str(file), bucket, key, ExtraArgs={"Metadata": metadata})
            except (exceptions.Boto3Error, OSError) as error:
                raise DeployError(f"{file} cannot be uploaded to s3://{bucket}/{key}: {_one_line(error)}") from error

    def check_number(self, number: str) -> None:
        """Raises DeployError where the credentials are of another account than `number`."""
        actual = self.send(Call("sts", "GetCallerIdentity", {}))["Account"]
        if actual != number:
            raise DeployError(f"the credentials are of account {actual}, and the deployment is for {number}: take other ones")

    def _client(self, service: str) -> Any:
        import botocore.config

        if service not in self._clients:
            config = botocore.config.Config(
                connect_timeout=_CONNECT_TIMEOUT_S,
                read_timeout=_READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": _NUM_ATTEMPTS},
            )
            self._clients[service] = self._session.client(service, config=config)
        return self._clients[service]


def open_account(region: str) -> Account:
    """With the credentials of boto3's own chain."""
    import boto3
    from botocore import exceptions

    try:
        return Account(boto3.session.Session(region_name=region))
    except exceptions.BotoCoreError as error:
        raise DeployError(f"AWS's configuration cannot be used: {_one_line(error)}") from error


def settled_region(region: str | None, environ: Mapping[str, str]) -> str:
    """`region` if it is given, else what the environment says, else the profile. Raises DeployError: none does."""
    import boto3
    from botocore import exceptions

    try:
        settled = region or environ.get("AWS_REGION") or boto3.session.Session().region_name
    except exceptions.BotoCoreError as error:
        raise DeployError(f"AWS's configuration cannot be used: {_one_line(error)}") from error
    if settled is None:
        raise DeployError("no AWS region is known: say --region, or set AWS_REGION")
    return str(settled)


def partition_of(region: str) -> str:
    """The part of AWS that `region` is in, as ARNs name it. Raises DeployError: AWS has no such region."""
    import boto3
    from botocore import exceptions

    try:
        return str(boto3.session.Session().get_partition_for_region(region))
    except exceptions.BotoCoreError as error:
        raise DeployError(f"--region {region}: {_one_line(error)}") from error


def method_name(operation: str) -> str:
    """boto3's name for an operation of the API: CreateModel is create_model."""
    from botocore import xform_name

    name: str = xform_name(operation)
    return name


@contextmanager
def _told_of(call: Call) -> Iterator[None]:
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        raise _answered(call, error.response.get("Error", {})) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError) as error:
        raise DeployError(f"{call.operation}: no credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY") from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise DeployError(f"{call.operation}: cannot reach AWS ({_one_line(error)}): check network and AWS_ENDPOINT_URL") from error
    except exceptions.BotoCoreError as error:
        raise DeployError(f"{call.operation}: {_one_line(error)}") from error
    except ValueError as error:
        raise DeployError(f"{call.operation}: {_one_line(error)}: check AWS_ENDPOINT_URL") from error


def _answered(call: Call, error: Mapping[str, str]) -> DeployError:
    code, message = error.get("Code", ""), _one_line(error.get("Message") or "no more is told")
    told = f"{call.operation}: AWS answers {code}: {message}"
    if any(text in message.lower() for text in _UNKNOWN_ROLE_MESSAGES):
        return RoleNotKnown(told)
    if code in _ABSENT or (code.startswith("Validation") and any(text in message.lower() for text in _ABSENT_MESSAGES)):
        return Absent(told)
    if code in _BAD_KEYS:
        return DeployError(f"{told}: renew the credentials")
    if code in _DENIED:
        # Who only asks for prices deploys nothing.
        wanted = "it takes the right pricing:GetProducts" if call.service == "pricing" else "--policies prints what the deployer needs"
        return DeployError(f"{told}: {wanted}")
    return DeployError(told)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
