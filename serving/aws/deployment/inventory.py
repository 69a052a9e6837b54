"""What there is of a deployment in the account: found by its names, and taken only if it carries the deployment's tag.

A scalable target is not asked for tags: what is registered for the deployment's own endpoint or component goes with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.aws.deployment.account import Account
from serving.aws.deployment.autoscaling import NAMESPACE, deregister, target_key
from serving.aws.deployment.description import TAG, Call, Kind, Lookup, Status, is_version_of, role_name
from serving.aws.deployment.endpoint_description import COMPONENT_STATUS, ENDPOINT_STATUS
from serving.aws.deployment.rollback import ALARM_SUFFIXES


@dataclass(frozen=True)
class Found:
    """One resource, and the call that takes it away. `find` is given for what goes slowly, `status` says how far that is."""

    kind: Kind
    name: str
    removal: Call
    find: Lookup | None = None
    status: Status | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"


def find_all(account: Account, name: str) -> list[Found]:
    """Everything of the deployment `name`, each before what it needs: the order of removal."""
    endpoint = account.attempt(Call("sagemaker", "DescribeEndpoint", {"EndpointName": name}))
    is_ours = endpoint is not None and tags_of(account, "endpoint", endpoint).get(TAG) == name
    found: list[Found] = []
    if endpoint is None or is_ours:
        found += _scaling(account, name)
    if endpoint is not None and is_ours:
        found += _components(account, name, endpoint)
        found.append(_slow("endpoint", name, "EndpointName", "Endpoint", ENDPOINT_STATUS))
    found += _alarms(account, name)
    found += _versions(account, name)
    found += _function(account, name)
    found += _role(account, name)
    return found


def find_attached(account: Account, name: str) -> list[Found]:
    """Of the endpoint `name`, which is the deployment's own, the scaling and the alarms."""
    return [*_scaling(account, name), *_alarms(account, name)]


def tags_of(account: Account, kind: Kind, found: Mapping[str, Any]) -> dict[str, str]:
    """The tags of what a description of `kind` has shown."""
    if kind == "role":
        tags = found.get("Tags", [])
    elif kind == "alarm":
        tags = account.send(Call("cloudwatch", "ListTagsForResource", {"ResourceARN": found["AlarmArn"]}))["Tags"]
    elif kind == "function":
        return dict(account.send(Call("lambda", "ListTags", {"Resource": found["FunctionArn"]})).get("Tags", {}))
    else:
        tags = account.listed(Call("sagemaker", "ListTags", {"ResourceArn": found[_ARN[kind]]}), "Tags")
    return {tag["Key"]: tag["Value"] for tag in tags}


_ARN: dict[str, str] = {
    "endpoint": "EndpointArn",
    "endpoint-config": "EndpointConfigArn",
    "model": "ModelArn",
    "inference-component": "InferenceComponentArn",
    "transform-job": "TransformJobArn",
}


def _scaling(account: Account, name: str) -> Iterator[Found]:
    keys = {target_key(name, is_component=kind)["ResourceId"]: kind for kind in (False, True)}
    listing = Call("application-autoscaling", "DescribeScalableTargets", {"ServiceNamespace": NAMESPACE, "ResourceIds": list(keys)})
    for target in account.send(listing)["ScalableTargets"]:
        is_component = keys[target["ResourceId"]]
        if is_component and _is_others_component(account, name):
            continue
        policies = Call(
            "application-autoscaling", "DescribeScalingPolicies", {"ServiceNamespace": NAMESPACE, "ResourceId": target["ResourceId"]}
        )
        for policy in account.send(policies)["ScalingPolicies"]:
            delete = {"PolicyName": policy["PolicyName"], **target_key(name, is_component=is_component)}
            yield Found("scaling-policy", policy["PolicyName"], Call("application-autoscaling", "DeleteScalingPolicy", delete))
        yield Found("scalable-target", target["ResourceId"], deregister(name, is_component=is_component))


def _is_others_component(account: Account, name: str) -> bool:
    """Whether somebody else has an inference component of the name, which may be on any endpoint."""
    found = account.attempt(Call("sagemaker", "DescribeInferenceComponent", {"InferenceComponentName": name}))
    return found is not None and tags_of(account, "inference-component", found).get(TAG) != name


def _components(account: Account, name: str, endpoint: Mapping[str, Any]) -> Iterator[Found]:
    config = account.attempt(Call("sagemaker", "DescribeEndpointConfig", {"EndpointConfigName": endpoint["EndpointConfigName"]}))
    if config is None or all("ModelName" in variant for variant in config["ProductionVariants"]):
        return
    listing = Call("sagemaker", "ListInferenceComponents", {"EndpointNameEquals": name})
    for component in account.listed(listing, "InferenceComponents"):
        if tags_of(account, "inference-component", component).get(TAG) == name:
            its_name = component["InferenceComponentName"]
            yield _slow("inference-component", its_name, "InferenceComponentName", "InferenceComponent", COMPONENT_STATUS)


def _slow(kind: Kind, name: str, key: str, noun: str, status: Status) -> Found:
    parameters = {key: name}
    removal = Call("sagemaker", f"Delete{noun}", parameters)
    return Found(kind, name, removal, find=Lookup(Call("sagemaker", f"Describe{noun}", parameters)), status=status)


def _alarms(account: Account, name: str) -> Iterator[Found]:
    names = [f"{name}-{suffix}" for suffix in ALARM_SUFFIXES]
    for alarm in account.send(Call("cloudwatch", "DescribeAlarms", {"AlarmNames": names}))["MetricAlarms"]:
        if tags_of(account, "alarm", alarm).get(TAG) == name:
            yield Found("alarm", alarm["AlarmName"], Call("cloudwatch", "DeleteAlarms", {"AlarmNames": [alarm["AlarmName"]]}))


def _versions(account: Account, name: str) -> Iterator[Found]:
    """What has its contents in its name: every version that was ever made."""
    listings: tuple[tuple[Kind, str, str, str, str], ...] = (
        ("transform-job", "ListTransformJobs", "TransformJobSummaries", "TransformJobName", "StopTransformJob"),
        ("endpoint-config", "ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName", "DeleteEndpointConfig"),
        ("model", "ListModels", "Models", "ModelName", "DeleteModel"),
    )
    for kind, operation, field_name, key, removal in listings:
        for item in account.listed(Call("sagemaker", operation, {"NameContains": name}), field_name):
            # A job that has ended costs nothing, and cannot be deleted.
            is_over = kind == "transform-job" and item["TransformJobStatus"] != "InProgress"
            if is_over or not is_version_of(name, item[key]):
                continue
            tags = tags_of(account, kind, item)
            if tags.get(TAG) == name:
                yield Found(kind, item[key], Call("sagemaker", removal, {key: item[key]}), tags=tags)


def _function(account: Account, name: str) -> Iterator[Found]:
    key = {"FunctionName": name}
    found = account.attempt(Call("lambda", "GetFunction", key))
    if found is not None and tags_of(account, "function", found["Configuration"]).get(TAG) == name:
        yield Found("function-url", name, Call("lambda", "DeleteFunctionUrlConfig", key))
        yield Found("function", name, Call("lambda", "DeleteFunction", key))


def _role(account: Account, name: str) -> Iterator[Found]:
    key = {"RoleName": role_name(name)}
    found = account.attempt(Call("iam", "GetRole", key))
    if found is not None and tags_of(account, "role", found["Role"]).get(TAG) == name:
        for policy in account.listed(Call("iam", "ListRolePolicies", key), "PolicyNames"):
            yield Found("role-policy", policy, Call("iam", "DeleteRolePolicy", {**key, "PolicyName": policy}))
        yield Found("role", role_name(name), Call("iam", "DeleteRole", key))
