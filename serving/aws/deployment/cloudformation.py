"""A deployment as a CloudFormation template, for accounts that no tool may touch. Pure.

Properties are the parameters of the calls, whose names CloudFormation shares but for the exceptions below. Names are literal, each resource
depends on the one before it, and what has its contents in its name is replaced when they change.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from serving.aws.deployment.description import Deployment, Reference, Resource
from serving.errors import DeployError

_TYPES = {
    "model": "AWS::SageMaker::Model",
    "endpoint-config": "AWS::SageMaker::EndpointConfig",
    "endpoint": "AWS::SageMaker::Endpoint",
    "inference-component": "AWS::SageMaker::InferenceComponent",
    "alarm": "AWS::CloudWatch::Alarm",
    "scalable-target": "AWS::ApplicationAutoScaling::ScalableTarget",
    "scaling-policy": "AWS::ApplicationAutoScaling::ScalingPolicy",
    "role": "AWS::IAM::Role",
    "role-policy": "AWS::IAM::RolePolicy",
    "function": "AWS::Lambda::Function",
    "function-url": "AWS::Lambda::Url",
}
_UPDATE_PROPERTIES = ("DeploymentConfig", "RetainAllVariantProperties")
"""What the template says of later updates, which the calls say when they update."""
_JSON_PROPERTIES = ("AssumeRolePolicyDocument", "PolicyDocument")
CODE_PARAMETERS = ("CodeBucket", "CodeKey")


def template(deployment: Deployment) -> dict[str, Any]:
    """Raises DeployError for a transform job, which CloudFormation does not know."""
    logical_ids = {resource.title: _logical_id(resource, deployment.name) for resource in deployment.resources}
    resources: dict[str, Any] = {}
    for resource in deployment.resources:
        if resource.kind == "transform-job":
            raise DeployError("CloudFormation has no batch transform jobs: --batch cannot be written as a template")
        if resource.create is None:
            continue
        entry = {"Type": _TYPES[resource.kind], "Properties": _properties(resource, resource.create.parameters, logical_ids)}
        # A reference to the one before says so by itself.
        if resources and not _refers_to(entry["Properties"], previous := list(resources)[-1]):
            entry["DependsOn"] = previous
        resources[logical_ids[resource.title]] = entry
    written: dict[str, Any] = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Tokenport deployment {deployment.name}",
        "Resources": resources,
    }
    if any(resource.kind == "function" for resource in deployment.resources):
        written["Parameters"] = {name: {"Type": "String", "Description": "Of the function's zip in S3"} for name in CODE_PARAMETERS}
    return written


def _logical_id(resource: Resource, deployment_name: str) -> str:
    """The same in every version of the template, so that CloudFormation knows what became of what."""
    own = resource.name.removeprefix(deployment_name) if resource.kind in ("alarm", "scaling-policy") else ""
    return "".join(part.capitalize() for part in re.findall(r"[a-zA-Z0-9]+", f"{resource.kind}-{own}"))


def _properties(resource: Resource, created_by: Mapping[str, Any], logical_ids: Mapping[str, str]) -> dict[str, Any]:
    parameters = dict(created_by)
    if resource.update is not None:
        parameters |= {name: resource.update.parameters[name] for name in _UPDATE_PROPERTIES if name in resource.update.parameters}
    for name in _JSON_PROPERTIES:
        if name in parameters:
            parameters[name] = json.loads(parameters[name])
    # What a stack makes is the stack's: without the tag neither `deploy` nor `destroy` takes it for its own.
    parameters.pop("Tags", None)
    if resource.kind == "function":
        parameters["Code"] = {"S3Bucket": {"Ref": CODE_PARAMETERS[0]}, "S3Key": {"Ref": CODE_PARAMETERS[1]}}
    if resource.kind == "function-url":
        parameters["TargetFunctionArn"] = parameters.pop("FunctionName")
    resolved: dict[str, Any] = _with_refs(parameters, logical_ids)
    return resolved


def _refers_to(value: Any, logical_id: str) -> bool:
    if isinstance(value, Mapping):
        is_reference = value.get("Ref") == logical_id or value.get("Fn::GetAtt", [None])[0] == logical_id
        return is_reference or any(_refers_to(item, logical_id) for item in value.values())
    return isinstance(value, list) and any(_refers_to(item, logical_id) for item in value)


def _with_refs(value: Any, logical_ids: Mapping[str, str]) -> Any:
    if isinstance(value, Reference):
        # Ref gives a policy's ARN, but a role's name.
        logical_id = logical_ids[value.title]
        return {"Fn::GetAtt": [logical_id, value.field]} if value.field == "Arn" else {"Ref": logical_id}
    if isinstance(value, Mapping):
        return {name: _with_refs(item, logical_ids) for name, item in value.items()}
    return [_with_refs(item, logical_ids) for item in value] if isinstance(value, list) else value
