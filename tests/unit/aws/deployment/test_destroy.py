"""Taking a deployment away: all of it, nothing else, and again."""

import pytest

from serving.aws.deployment.description import Call
from serving.aws.deployment.endpoint_description import describe_endpoint
from serving.errors import DeployError
from tests.unit.aws.deployment.requests import BATCH, COMPONENTS, KINDS, SCALED, TO_ZERO, TOKENS, endpoint, request

ROLE = "arn:aws:iam::123456789012:role/other"


def names(aws):
    sagemaker = aws.client("sagemaker")
    return {
        "models": {model["ModelName"] for model in sagemaker.list_models()["Models"]},
        "configs": {config["EndpointConfigName"] for config in sagemaker.list_endpoint_configs()["EndpointConfigs"]},
        "endpoints": set(aws.endpoints),
        "alarms": {alarm["AlarmName"] for alarm in aws.client("cloudwatch").describe_alarms()["MetricAlarms"]},
        "targets": {
            target["ResourceId"]
            for target in aws.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        },
        "components": set(aws.components),
        "component targets": set(aws.component_targets),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_it_stays(aws, kind):
    before = names(aws)
    aws.apply(describe_endpoint(request(*KINDS[kind])))
    assert names(aws) != before
    aws.destroy("chat")
    assert names(aws) == before


def test_every_version_goes(aws):
    before = names(aws)
    aws.apply(endpoint())
    aws.apply(endpoint("--env", "A=1"))
    aws.destroy("chat")
    assert names(aws) == before


def test_a_second_time_there_is_nothing(aws):
    aws.apply(endpoint())
    aws.destroy("chat")
    aws.operations.clear()
    assert aws.destroy("chat") == 0
    assert aws.changes == []


def foreign_things(aws):
    """By hand, with names that are as near as can be."""
    sagemaker = aws.client("sagemaker")
    tags = [{"Key": "tokenport:deployment", "Value": "chat-2"}]
    for name, its_tags in (("chat-0123456789", []), ("chat-2-0123456789", tags), ("chat-model", tags)):
        sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "x"}, ExecutionRoleArn=ROLE, Tags=its_tags)
        variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=its_tags)
    sagemaker.create_endpoint(EndpointName="chat-2", EndpointConfigName="chat-2-0123456789", Tags=tags)
    scaling = aws.client("application-autoscaling")
    scaling.register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/chat-2/variant/AllTraffic",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=1,
        MaxCapacity=2,
    )
    for name in ("chat-2-5xx", "chat-latency"):
        aws.client("cloudwatch").put_metric_alarm(
            AlarmName=name,
            Namespace="N",
            MetricName="M",
            Statistic="Sum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
        )


def test_what_others_made_stays(aws):
    foreign_things(aws)
    before = names(aws)
    aws.apply(endpoint(*SCALED, *TOKENS))
    aws.destroy("chat")
    assert names(aws) == before


def test_an_endpoint_of_the_name_that_others_made_stays_with_its_scaling(aws):
    foreign_things(aws)
    before = names(aws)
    sagemaker = aws.client("sagemaker")
    sagemaker.delete_endpoint(EndpointName="chat-2")
    sagemaker.create_endpoint(EndpointName="chat-2", EndpointConfigName="chat-model")
    aws.destroy("chat-2")
    after = names(aws)
    assert after["endpoints"] == before["endpoints"]
    assert after["targets"] == before["targets"]


@pytest.mark.parametrize("is_deployed", [True, False])
def test_a_component_of_the_name_that_others_have_elsewhere_keeps_its_scaling(aws, is_deployed):
    target = {"ResourceId": "inference-component/chat", "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount"}
    theirs = {"InferenceComponentName": "chat", "EndpointName": "other", "RuntimeConfig": {"CopyCount": 1}, "Tags": []}
    aws.account.send(Call("sagemaker", "CreateInferenceComponent", theirs))
    limits = {"ServiceNamespace": "sagemaker", "MinCapacity": 1, "MaxCapacity": 2}
    aws.account.send(Call("application-autoscaling", "RegisterScalableTarget", {**target, **limits}))
    if is_deployed:
        aws.apply(endpoint())
        aws.apply(endpoint())
    aws.destroy("chat")
    assert set(aws.component_targets) == {"inference-component/chat"}


def test_a_run_that_was_stopped_goes_on(aws):
    before = names(aws)
    aws.apply(endpoint(*SCALED))
    aws.refused["DeleteEndpointConfig"] = "not now"
    with pytest.raises(DeployError) as raised:
        aws.destroy("chat")
    assert "Left behind: endpoint-config chat-" in str(raised.value)
    assert "model chat-" in str(raised.value)
    aws.refused.clear()
    aws.destroy("chat")
    assert names(aws) == before


def test_what_goes_meanwhile_is_no_failure(aws):
    aws.apply(endpoint())
    aws.refused["DeleteModel"] = "Could not find model"
    assert aws.destroy("chat") == 4


def test_scaling_goes_before_the_endpoint_and_the_model_last(aws):
    aws.apply(endpoint(*COMPONENTS, *TO_ZERO))
    aws.operations.clear()
    aws.destroy("chat")
    assert aws.changes == [
        "DeleteScalingPolicy",
        "DeleteScalingPolicy",
        "DeregisterScalableTarget",
        "DeleteInferenceComponent",
        "DeleteEndpoint",
        "DeleteAlarms",
        "DeleteAlarms",
        "DeleteEndpointConfig",
        "DeleteModel",
    ]


def test_a_job_that_runs_is_stopped(aws):
    aws.apply(endpoint(*BATCH))
    (job,) = aws.client("sagemaker").list_transform_jobs()["TransformJobSummaries"]
    assert job["TransformJobName"].startswith("chat-")
    aws.destroy("chat")
    assert names(aws)["models"] == set()
