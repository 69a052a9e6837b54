"""How an update takes over from what runs, and the alarms that take it back. Pure.

An endpoint is updated blue/green, an inference component copy by copy; both return by themselves when an alarm fires meanwhile.
"""

from typing import Any

from serving.aws.deployment.autoscaling import alarm_resource
from serving.aws.deployment.description import Resource
from serving.aws.deployment.endpoint_request import LONGEST_UPDATE_S, VARIANT, EndpointRequest, Traffic

ALARM_SUFFIXES = ("5xx", "latency", "wake")
"""Of all the alarms that a deployment can have."""
_MICROSECONDS_PER_MS = 1000
_LONGEST_START_S = 3600
"""SageMaker waits no longer for a download, nor for a container to become healthy."""


def alarm_resources(request: EndpointRequest) -> tuple[Resource, ...]:
    """Errors always, latency where a limit was told."""
    traffic = request.traffic
    alarms = [_alarm(request, "5xx", "Invocation5XXErrors", "Sum", float(traffic.rollback_errors))]
    if traffic.rollback_latency_ms is not None:
        threshold = float(traffic.rollback_latency_ms * _MICROSECONDS_PER_MS)
        alarms.append(_alarm(request, "latency", "ModelLatency", "Average", threshold))
    return tuple(alarms)


def _alarm(request: EndpointRequest, suffix: str, metric: str, statistic: str, threshold: float) -> Resource:
    if request.components is None:
        dimensions = [{"Name": "EndpointName", "Value": request.name}, {"Name": "VariantName", "Value": VARIANT}]
    else:
        dimensions = [{"Name": "InferenceComponentName", "Value": request.name}]
    return alarm_resource(
        request.name,
        f"{request.name}-{suffix}",
        {
            "AlarmDescription": "An update in progress is rolled back",
            "Namespace": "AWS/SageMaker",
            "MetricName": metric,
            "Dimensions": dimensions,
            "Statistic": statistic,
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": threshold,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
        },
    )


def blue_green(request: EndpointRequest, alarms: tuple[Resource, ...]) -> dict[str, Any]:
    """UpdateEndpoint's DeploymentConfig."""
    traffic = request.traffic
    routing: dict[str, Any] = {"Type": traffic.shift.replace("-", "_").upper(), "WaitIntervalInSeconds": traffic.wait_s}
    if traffic.shift != "all-at-once":
        field = "CanarySize" if traffic.shift == "canary" else "LinearStepSize"
        routing[field] = {"Type": "CAPACITY_PERCENT", "Value": traffic.percent}
    policy = {
        "TrafficRoutingConfiguration": routing,
        "TerminationWaitInSeconds": traffic.termination_wait_s,
        "MaximumExecutionTimeoutInSeconds": _deadline_s(traffic),
    }
    return {"BlueGreenUpdatePolicy": policy, **_rollback(alarms)}


def rolling(request: EndpointRequest, alarms: tuple[Resource, ...]) -> dict[str, Any]:
    """UpdateInferenceComponent's DeploymentConfig: one copy after the other."""
    policy = {"MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1}, "WaitIntervalInSeconds": request.traffic.wait_s}
    return {"RollingUpdatePolicy": policy, **_rollback(alarms)}


def _rollback(alarms: tuple[Resource, ...]) -> dict[str, Any]:
    names = [{"AlarmName": alarm.name} for alarm in alarms]
    return {"AutoRollbackConfiguration": {"Alarms": names}} if names else {}


def _deadline_s(traffic: Traffic) -> int:
    """Longer than the waits that it bounds, by what a start may take."""
    return min(traffic.waits_s + 2 * _LONGEST_START_S, LONGEST_UPDATE_S)
