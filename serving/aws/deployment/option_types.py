"""Values of options, read with the ranges and forms that AWS's API references give; what is wrong says what would be right."""

import argparse
import math
import re
from collections.abc import Callable
from typing import Any

from serving.aws.deployment.description import MAX_NAME_LENGTH


def bounded(minimum: float, maximum: float | None = None, *, kind: type[int] | type[float] = int) -> Callable[[str], Any]:
    """A number from `minimum` to `maximum`."""
    told = f"{minimum} to {maximum}" if maximum is not None else f"at least {minimum}"

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number; {told}") from None
        if not minimum <= value <= (maximum if maximum is not None else value) or math.isinf(value):
            raise argparse.ArgumentTypeError(f"{text} is out of range; {told}")
        return value

    return read


def matching(pattern: str, told: str) -> Callable[[str], str]:
    """Text that `pattern` matches whole; `told` says what would be right."""
    compiled = re.compile(pattern)

    def read(text: str) -> str:
        if not compiled.fullmatch(text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {told}")
        return text

    return read


def variable(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return name, value


NAME = matching(
    rf"[a-zA-Z0-9](-*[a-zA-Z0-9]){{0,{MAX_NAME_LENGTH - 1}}}",
    f"a name of letters, digits and single inner dashes, at most {MAX_NAME_LENGTH} long",
)
HOSTED_NAME = matching(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", "a name of SageMaker's: letters, digits and inner dashes, at most 63")
ROLE_ARN = matching(r"arn:aws[a-z\-]*:iam::\d{12}:role/[a-zA-Z_0-9+=,.@\-_/]+", "a role's ARN: arn:aws:iam::123456789012:role/NAME is")
ACCOUNT = matching(r"\d{12}", "an account's number: twelve digits")
LAYER_ARN = matching(r"arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:layer:[a-zA-Z0-9-_]+:\d+", "a layer version's ARN")
INSTANCE_TYPE = matching(r"ml\.[a-z0-9-]+\.[a-z0-9]+", "an instance type of SageMaker: ml.g6.2xlarge is")
S3_URI = matching(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", "an S3 location: s3://bucket/prefix is")
UPLOAD_URI = matching(
    r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w./=+@-]{0,100})?",
    "an S3 location that a tag can hold: s3://bucket/prefix is, of letters, digits and ./=+@-_",
)
NAMESPACE = matching(
    r"(?!AWS/)[\w.\-/# ][\w.\-/#: ]{0,254}",
    "a CloudWatch namespace of one's own: up to 255 letters, digits and . _ - / # : and spaces, beginning with neither AWS/ nor a colon",
)
BEDROCK_MODEL = matching(
    r"[a-zA-Z0-9][\w.:/-]{0,2047}", "what Bedrock knows a model by: an id such as amazon.nova-micro-v1:0, an inference profile or an ARN is"
)
