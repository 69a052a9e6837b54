"""Scaling as resources: what may vary, what a copy or an instance should carry, and what wakes it from zero. Pure.

Rules: a target is tracked; tracking cannot leave zero (nothing divided by no copies), so from zero an alarm raises the first copy.
Cooldowns are left to Application Auto Scaling's defaults.
"""

from collections.abc import Mapping
from typing import Any

from serving.aws.deployment.description import Call, Lookup, Reference, Resource, tag_list
from serving.aws.deployment.endpoint_request import VARIANT, EndpointRequest

NAMESPACE = "sagemaker"
OUTSTANDING_TOKENS = "OutstandingTokens"
"""The metric of the server's CloudWatch lines: tokens of prompt and answer still to be computed, a server."""


def scaling_resources(request: EndpointRequest) -> tuple[Resource, ...]:
    """Target, policies and alarm of `request`; none where its capacity is fixed."""
    if request.scaling is None:
        return ()
    policies = [_tracking_policy(request, name, target, metric) for name, target, metric in _tracked(request)]
    wake = _wake_resources(request) if request.capacity[0] == 0 else ()
    return (_target(request), *policies, *wake)


def target_key(name: str, *, is_component: bool) -> dict[str, str]:
    """What names a scalable target in every call of Application Auto Scaling."""
    if is_component:
        resource, dimension = f"inference-component/{name}", "sagemaker:inference-component:DesiredCopyCount"
    else:
        resource, dimension = f"endpoint/{name}/variant/{VARIANT}", "sagemaker:variant:DesiredInstanceCount"
    return {"ServiceNamespace": NAMESPACE, "ResourceId": resource, "ScalableDimension": dimension}


def deregister(name: str, *, is_component: bool) -> Call:
    """Takes the target's policies, and the alarms that AWS made for them, with it."""
    return Call("application-autoscaling", "DeregisterScalableTarget", target_key(name, is_component=is_component))


def _key(request: EndpointRequest) -> dict[str, str]:
    return target_key(request.name, is_component=request.components is not None)


def _target(request: EndpointRequest) -> Resource:
    minimum, maximum = request.capacity
    key, limits = _key(request), {"MinCapacity": minimum, "MaxCapacity": maximum}
    find = {name: value for name, value in key.items() if name != "ResourceId"} | {"ResourceIds": [key["ResourceId"]]}
    return Resource(
        "scalable-target",
        key["ResourceId"],
        find=Lookup(Call("application-autoscaling", "DescribeScalableTargets", find), "ScalableTargets"),
        # Tags are taken at the first registration only.
        create=Call("application-autoscaling", "RegisterScalableTarget", {**key, **limits, "Tags": _tag_map(request.name)}),
        expected=limits,
        update=Call("application-autoscaling", "RegisterScalableTarget", {**key, **limits}),
    )


def _tag_map(name: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tag_list(name)}


def _tracked(request: EndpointRequest) -> list[tuple[str, float, dict[str, Any]]]:
    """Of each target: the policy's name, the value, and what says which metric."""
    scaling = request.scaling
    found: list[tuple[str, float, dict[str, Any]]] = []
    if scaling is not None and scaling.target_concurrency is not None:
        found.append(("concurrency", scaling.target_concurrency, _concurrency_metric(request)))
    if scaling is not None and scaling.target_tokens is not None and scaling.metrics_namespace is not None:
        metric = _endpoint_metric(request.name, scaling.metrics_namespace, OUTSTANDING_TOKENS)
        found.append(("tokens", scaling.target_tokens, metric))
    return found


def _concurrency_metric(request: EndpointRequest) -> dict[str, Any]:
    if request.async_output is not None:
        return _endpoint_metric(request.name, "AWS/SageMaker", "ApproximateBacklogSizePerInstance")
    predefined = (
        "SageMakerVariantConcurrentRequestsPerModelHighResolution"
        if request.components is None
        else "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
    )
    return {"PredefinedMetricSpecification": {"PredefinedMetricType": predefined}}


def _endpoint_metric(name: str, namespace: str, metric: str) -> dict[str, Any]:
    # The mean over what the copies report is the load of one, which is what a target per copy has to be compared with.
    specification = {"Namespace": namespace, "MetricName": metric, "Statistic": "Average"}
    return {"CustomizedMetricSpecification": {**specification, "Dimensions": [{"Name": "EndpointName", "Value": name}]}}


def _tracking_policy(request: EndpointRequest, suffix: str, target: float, metric: Mapping[str, Any]) -> Resource:
    configuration = {"TargetValue": float(target), **metric}
    return _policy(request, suffix, "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration", configuration)


def _policy(request: EndpointRequest, suffix: str, policy_type: str, field: str, configuration: Mapping[str, Any]) -> Resource:
    key, name = _key(request), f"{request.name}-{suffix}"
    put = Call("application-autoscaling", "PutScalingPolicy", {"PolicyName": name, **key, "PolicyType": policy_type, field: configuration})
    return Resource(
        "scaling-policy",
        name,
        find=Lookup(Call("application-autoscaling", "DescribeScalingPolicies", {"PolicyNames": [name], **key}), "ScalingPolicies"),
        create=put,
        expected={"PolicyType": policy_type, field: configuration},
        update=put,
    )


def _wake_resources(request: EndpointRequest) -> tuple[Resource, Resource]:
    """As in "Scale an endpoint to zero instances" and "Autoscale an asynchronous endpoint" of the SageMaker guide."""
    steps = [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}]
    configuration = {"AdjustmentType": "ChangeInCapacity", "MetricAggregationType": "Maximum", "StepAdjustments": steps}
    policy = _policy(request, "wake", "StepScaling", "StepScalingPolicyConfiguration", configuration)
    if request.components is None:
        metric, dimension = "HasBacklogWithoutCapacity", "EndpointName"
    else:
        metric, dimension = "NoCapacityInvocationFailures", "InferenceComponentName"
    alarm = alarm_resource(
        request.name,
        f"{request.name}-wake",
        {
            "AlarmDescription": "A request came while nothing runs: the first copy or instance is started",
            "AlarmActions": [Reference(policy.title, "PolicyARN")],
            "Namespace": "AWS/SageMaker",
            "MetricName": metric,
            "Dimensions": [{"Name": dimension, "Value": request.name}],
            "Statistic": "Maximum",
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": 1.0,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
        },
    )
    return policy, alarm


def alarm_resource(deployment: str, name: str, contents: Mapping[str, Any]) -> Resource:
    """A CloudWatch alarm; `contents` are the parameters of PutMetricAlarm without name and tags."""
    parameters = {"AlarmName": name, **contents}
    return Resource(
        "alarm",
        name,
        find=Lookup(Call("cloudwatch", "DescribeAlarms", {"AlarmNames": [name]}), "MetricAlarms"),
        create=Call("cloudwatch", "PutMetricAlarm", {**parameters, "Tags": tag_list(deployment)}),
        expected=parameters,
        update=Call("cloudwatch", "PutMetricAlarm", parameters),
    )
