"""The words of `tokenport deploy lambda`, read into a `FunctionRequest`. Ranges are Lambda's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.aws.deployment.account import partition_of, settled_region
from serving.aws.deployment.lambda_description import FunctionRequest
from serving.aws.deployment.option_types import ACCOUNT, BEDROCK_MODEL, HOSTED_NAME, LAYER_ARN, NAME, ROLE_ARN, bounded
from serving.aws.deployment.policies import Place, place_of
from serving.errors import DeployError
from serving.planner.commands.one_line_parser import OneLineParser

_ADAPTER_LAYER = "arn:aws:lambda:{region}:753240598075:layer:LambdaAdapterLayerX86:26"
"""https://awslabs.github.io/aws-lambda-web-adapter/getting-started/zip-packages.html: AWS's commercial regions, x86_64."""
_DEADLINE_S = 600


@dataclass(frozen=True)
class FunctionOptions:
    """Of `dry_run`, `policies` and `cloudformation` each shows something and sends nothing."""

    request: FunctionRequest
    deadline_s: int
    dry_run: bool
    policies: bool
    cloudformation: Path | None


def read_options(words: Sequence[str], environ: Mapping[str, str]) -> FunctionOptions:
    """Raises DeployError; ends the process for wrong words."""
    given = _parser().namespace(words)
    if (given.bedrock is None) == (given.endpoint is None):
        raise DeployError("the function asks one of the two: --bedrock MODEL or --endpoint NAME")
    if given.component is not None and given.endpoint is None:
        raise DeployError(f"--component {given.component} is for --endpoint")
    if (given.role is None) == (given.account is None):
        raise DeployError(
            "say whose account it is: --account, where a role is then made for the function, or --role with one that is there"
        )
    region = settled_region(given.region, environ)
    place = place_of(given.role, region) if given.role else Place(partition_of(region), region, given.account)
    if place.partition != "aws" and given.adapter_layer is None:
        raise DeployError(f"--adapter-layer is needed in the partition {place.partition}, which has layers of its own")
    request = FunctionRequest(
        name=given.name,
        place=place,
        adapter_layer_arn=given.adapter_layer or _ADAPTER_LAYER.format(region=region),
        bedrock_model=given.bedrock,
        endpoint=given.endpoint,
        component=given.component,
        role_arn=given.role,
        memory_mb=given.memory_mb,
        timeout_s=given.timeout_s,
    )
    return FunctionOptions(request, given.deadline_s, given.dry_run, given.policies, given.cloudformation)


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="tokenport deploy lambda",
        description="A function with a URL that streams what Bedrock or an endpoint answers, for sporadic use.",
    )
    add: Any = parser.add_argument
    add("--name", required=True, type=NAME, metavar="NAME", help="of the deployment and the function")
    add(
        "--bedrock",
        type=BEDROCK_MODEL,
        metavar="MODEL",
        help="a model id, an inference profile, or the ARN of anything that Converse takes",
    )
    add("--endpoint", type=HOSTED_NAME, metavar="NAME", help="a SageMaker endpoint")
    add("--component", type=HOSTED_NAME, metavar="NAME", help="an inference component of the endpoint")
    add("--account", type=ACCOUNT, metavar="NUMBER", help="where it is deployed; a role is made there")
    add("--role", type=ROLE_ARN, metavar="ARN", help="a role that is there, instead of a new one")
    add("--region", metavar="REGION", help="else AWS_REGION, AWS_DEFAULT_REGION or the profile's")
    add("--adapter-layer", type=LAYER_ARN, metavar="ARN", help="Lambda Web Adapter for x86_64 (default: version 26, AWS's own)")
    add("--memory-mb", type=bounded(128, 10240), default=512, metavar="MB", help="its share of a processor grows with it (default 512)")
    add("--timeout-s", type=bounded(30, 900), default=900, metavar="S", help="of an invocation, at most 900 (default 900)")
    add("--deadline-s", type=bounded(1), default=_DEADLINE_S, metavar="S", help="for all waiting together (default %(default)s)")
    shows = parser.add_argument_group("instead of doing it (nothing is sent, no credentials are needed)").add_mutually_exclusive_group()
    shows.add_argument("--dry-run", action="store_true", help="print every call with its parameters, as JSON")
    shows.add_argument(
        "--policies", action="store_true", help="print the least IAM policies: of the function, its callers and the deployer"
    )
    shows.add_argument("--cloudformation", type=Path, metavar="FILE", help="write the same as a template, and the code beside it as .zip")
    return parser
