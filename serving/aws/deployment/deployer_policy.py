"""The policy of whoever deploys: the actions of the deployment's own calls, and those of looking at it and taking it away. Pure."""

from typing import Any

from serving.aws.deployment.artifacts import Upload
from serving.aws.deployment.autoscaling import NAMESPACE, target_key
from serving.aws.deployment.description import NUM_HASH_DIGITS, Call, Deployment, Kind, Resource, role_name
from serving.aws.deployment.policies import Place, allow, policy
from serving.aws.deployment.rollback import ALARM_SUFFIXES

_ALSO: dict[Kind, tuple[str, ...]] = {
    "model": ("sagemaker:AddTags", "sagemaker:DeleteModel", "sagemaker:ListTags"),
    "endpoint-config": ("sagemaker:AddTags", "sagemaker:DeleteEndpointConfig", "sagemaker:ListTags"),
    "endpoint": ("sagemaker:AddTags", "sagemaker:DeleteEndpoint", "sagemaker:ListTags"),
    "instance-count": (),
    "inference-component": ("sagemaker:AddTags", "sagemaker:DeleteInferenceComponent", "sagemaker:ListTags"),
    "transform-job": ("sagemaker:AddTags", "sagemaker:StopTransformJob", "sagemaker:ListTags"),
    "alarm": ("cloudwatch:DeleteAlarms", "cloudwatch:ListTagsForResource", "cloudwatch:TagResource"),
    # Whoever registers a target has to have the rights that scaling it takes ("Auto scaling prerequisites" of SageMaker's guide).
    "scalable-target": (
        "application-autoscaling:DeregisterScalableTarget",
        "sagemaker:DescribeEndpointConfig",
        "sagemaker:UpdateEndpointWeightsAndCapacities",
        "sagemaker:UpdateInferenceComponentRuntimeConfig",
    ),
    "scaling-policy": ("application-autoscaling:DeleteScalingPolicy",),
    "role": ("iam:DeleteRole", "iam:ListRolePolicies", "iam:TagRole"),
    "role-policy": ("iam:DeleteRolePolicy",),
    "function": ("lambda:GetFunction", "lambda:ListTags", "lambda:TagResource"),
    "function-code": (),
    "function-url": ("lambda:DeleteFunctionUrlConfig",),
}
"""Beside a resource's own calls: its tags, and its removal."""
_LOOKING = (
    "application-autoscaling:DescribeScalableTargets",
    "application-autoscaling:DescribeScalingPolicies",
    "cloudwatch:DescribeAlarms",
    "sagemaker:ListEndpointConfigs",
    "sagemaker:ListInferenceComponents",
    "sagemaker:ListModels",
    "sagemaker:ListTransformJobs",
)
"""How a deployment is found. IAM has no resource for them that could be named."""
_FIXED = ("sagemaker:DescribeEndpoint", "sagemaker:DescribeInferenceComponent", "sagemaker:ListTags", "lambda:GetFunction", "iam:GetRole")
"""Sent by `destroy` for every name: it does not know what was deployed."""
_CONDITIONS = {"application-autoscaling": {"StringEquals": {"application-autoscaling:service-namespace": NAMESPACE}}}
"""A scalable target's ARN has an identifier that AWS chooses; of which service it is can be said."""
_SERVICE_ROLE = "aws-service-role/sagemaker.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"


def deployer_policy(place: Place, deployment: Deployment, *, role_arn: str, service: str, upload: Upload | None = None) -> dict[str, Any]:
    """`role_arn` is passed to `service`, lambda or sagemaker."""
    actions: dict[str, set[str]] = {}
    for resource in deployment.resources:
        for action in (*map(_action, _calls(resource)), *_ALSO[resource.kind]):
            actions.setdefault(action.partition(":")[0], set()).add(action)
    for action in _FIXED:
        actions.setdefault(action.partition(":")[0], set()).add(action)
    resources = _resources(place, deployment.name)
    statements = [
        allow(found - set(_LOOKING), resources[name], _CONDITIONS.get(name))
        for name, found in sorted(actions.items())
        if found - set(_LOOKING)
    ]
    statements.append(allow(_LOOKING, ["*"]))
    statements.append(allow(["iam:PassRole"], [role_arn], {"StringEquals": {"iam:PassedToService": f"{service}.amazonaws.com"}}))
    if "application-autoscaling" in actions:
        statements += _scaling_statements(place, deployment.name)
    if layers := _layers(deployment):
        statements.append(allow(["lambda:GetLayerVersion"], layers))
    if upload is not None:
        statements += _upload_statements(place, upload)
    return policy(statements)


def _calls(resource: Resource) -> list[Call]:
    calls = (resource.find.call, resource.create, resource.before_update, resource.update, resource.remove)
    return [call for call in calls if call is not None]


def _action(call: Call) -> str:
    return f"{call.service}:{call.operation}"


def _resources(place: Place, name: str) -> dict[str, list[str]]:
    hosted = (f"{kind}/{name.lower()}" for kind in ("endpoint", "inference-component"))
    versioned = (f"{kind}/{name.lower()}-{'?' * NUM_HASH_DIGITS}" for kind in ("endpoint-config", "model", "transform-job"))
    return {
        "sagemaker": [place.arn("sagemaker", resource) for resource in (*hosted, *versioned)],
        "cloudwatch": [place.arn("cloudwatch", f"alarm:{name}-{suffix}") for suffix in ALARM_SUFFIXES],
        "application-autoscaling": [place.arn("application-autoscaling", "scalable-target/*")],
        "lambda": [place.arn("lambda", f"function:{name}")],
        "iam": [f"arn:{place.partition}:iam::{place.account}:role/{role_name(name)}"],
    }


def _layers(deployment: Deployment) -> list[str]:
    return [arn for resource in deployment.resources if resource.create for arn in resource.create.parameters.get("Layers", [])]


def _scaling_statements(place: Place, name: str) -> list[dict[str, Any]]:
    """Application Auto Scaling makes a policy's alarms, and once in an account its role, with the rights of who asks. Of a new target's
    tags IAM does not know the service."""
    alarms = ["cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm"]
    targets = (target_key(name, is_component=is_component)["ResourceId"] for is_component in (False, True))
    role = f"arn:{place.partition}:iam::{place.account}:role/{_SERVICE_ROLE}"
    service = {"StringEquals": {"iam:AWSServiceName": "sagemaker.application-autoscaling.amazonaws.com"}}
    return [
        allow(alarms, [place.arn("cloudwatch", f"alarm:TargetTracking-{target}-*") for target in targets]),
        allow(["application-autoscaling:TagResource"], [place.arn("application-autoscaling", "scalable-target/*")]),
        allow(["iam:CreateServiceLinkedRole"], [role], service),
    ]


def _upload_statements(place: Place, upload: Upload) -> list[dict[str, Any]]:
    bucket = f"arn:{place.partition}:s3:::{upload.bucket}"
    root = upload.list_key.rpartition("/")[0]
    return [
        allow(["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"], [f"{bucket}/{root}/*"]),
        # Without it S3 answers that access is denied where there is nothing.
        allow(["s3:ListBucket"], [bucket], {"StringLike": {"s3:prefix": [f"{root}/*"]}}),
    ]
