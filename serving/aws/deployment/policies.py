"""IAM policies that allow what a deployment does, and no more: of the container's role, of the function's role, of who deploys. Pure.

Actions are named one by one. Where IAM knows no resource for an action (listings, ECR's login) its resource is `*`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.aws.deployment.artifacts import split_uri
from serving.aws.deployment.endpoint_request import EndpointRequest, Repository, repository_of

_PROFILE = re.compile(r"(us|us-gov|eu|apac|au|jp|ca|sa|global)\.(?P<model>.+)")
"""Prefixes of the cross-region inference profiles: the user guide's "Supported Regions and models for inference profiles"."""


@dataclass(frozen=True)
class Place:
    """Where it is deployed, as ARNs name it."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str) -> str:
        """Of a resource of this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


def place_of(role_arn: str, region: str) -> Place:
    """The place of a role's account."""
    parts = role_arn.split(":")
    return Place(partition=parts[1], region=region, account=parts[4])


def trust_policy(service: str) -> dict[str, Any]:
    """Who may take the role."""
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}],
    }


def allow(actions: Iterable[str], resources: list[str], condition: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One statement."""
    statement = {"Effect": "Allow", "Action": sorted(actions), "Resource": resources}
    return statement if condition is None else {**statement, "Condition": condition}


def policy(statements: list[dict[str, Any]]) -> dict[str, Any]:
    """The document."""
    return {"Version": "2012-10-17", "Statement": statements}


def execution_policy(place: Place, request: EndpointRequest) -> dict[str, Any]:
    """What SageMaker and the container do as the execution role ("CreateModel API: Execution Role Permissions" of the guide)."""
    statements = [
        *_read_statements(place, request.container.model_uri),
        allow(["cloudwatch:PutMetricData"], ["*"]),
        *_log_statements(place, _log_group(request)),
        *_image_statements(place, repository_of(request.container.image_uri)),
    ]
    if request.async_output is not None:
        # Requests of an asynchronous endpoint lie wherever its callers put them; this allows the place of the answers.
        statements.append(allow(["s3:GetObject", "s3:PutObject"], [_objects(place, _folder(request.async_output))]))
    if request.batch is not None:
        statements += _read_statements(place, request.batch.source)
        statements.append(allow(["s3:PutObject"], [_objects(place, _folder(request.batch.output))]))
    return policy(statements)


def function_policy(place: Place, name: str, bedrock_model: str | None, endpoint: str | None, component: str | None) -> dict[str, Any]:
    """What the function does: write its log, ask its model."""
    statements = _log_statements(place, f"/aws/lambda/{name}")
    if bedrock_model is not None:
        statements += _bedrock_statements(place, bedrock_model)
    if endpoint is not None:
        # SageMaker writes names small in its ARNs.
        resources = [place.arn("sagemaker", f"endpoint/{endpoint.lower()}")]
        if component is not None:
            resources.append(place.arn("sagemaker", f"inference-component/{component.lower()}"))
        statements.append(allow(["sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream"], resources))
    return policy(statements)


def caller_policy(place: Place, name: str) -> dict[str, Any]:
    """What whoever calls the function's URL needs: both, since October 2025 ("Control access to Lambda function URLs")."""
    return policy([allow(["lambda:InvokeFunction", "lambda:InvokeFunctionUrl"], [place.arn("lambda", f"function:{name}")])])


def _bedrock_statements(place: Place, model: str) -> list[dict[str, Any]]:
    """Converse is allowed by the actions of InvokeModel."""
    actions, is_arn = ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"], model.startswith("arn:")
    if profile := _PROFILE.fullmatch(model.rpartition(":inference-profile/")[2]):
        # The profile, and by it alone the model, in whatever region it sends the request to.
        own = model if is_arn else place.arn("bedrock", f"inference-profile/{model}")
        behind = f"arn:{place.partition}:bedrock:*::foundation-model/{profile['model']}"
        return [allow(actions, [own]), allow(actions, [behind], {"StringEquals": {"bedrock:InferenceProfileArn": own}})]
    return [allow(actions, [model if is_arn else f"arn:{place.partition}:bedrock:{place.region}::foundation-model/{model}"])]


def _read_statements(place: Place, uri: str) -> list[dict[str, Any]]:
    bucket, prefix = split_uri("S3", uri)
    listing = allow(["s3:ListBucket"], [f"arn:{place.partition}:s3:::{bucket}"], {"StringLike": {"s3:prefix": [f"{prefix}*"]}})
    return [allow(["s3:GetObject"], [_objects(place, uri)]), listing]


def _objects(place: Place, uri: str) -> str:
    bucket, prefix = split_uri("S3", uri)
    return f"arn:{place.partition}:s3:::{bucket}/{prefix}{'' if prefix.endswith('.tar.gz') else '*'}"


def _folder(uri: str) -> str:
    """Where SageMaker writes below `uri`; what it reads it takes as a prefix."""
    return f"{uri.rstrip('/')}/"


def _log_group(request: EndpointRequest) -> str:
    """Where SageMaker puts what the container writes: "Log groups and streams that Amazon SageMaker AI sends to CloudWatch Logs"."""
    if request.batch is not None:
        return "/aws/sagemaker/TransformJobs"
    if request.components is not None:
        return f"/aws/sagemaker/InferenceComponents/{request.name}"
    return f"/aws/sagemaker/Endpoints/{request.name}"


def _log_statements(place: Place, group: str) -> list[dict[str, Any]]:
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    return [allow(actions, [place.arn("logs", f"log-group:{group}"), place.arn("logs", f"log-group:{group}:*")])]


def _image_statements(place: Place, repository: Repository) -> list[dict[str, Any]]:
    arn = f"arn:{place.partition}:ecr:{repository.region}:{repository.account}:repository/{repository.name}"
    pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    return [allow(pull, [arn]), allow(["ecr:GetAuthorizationToken"], ["*"])]
