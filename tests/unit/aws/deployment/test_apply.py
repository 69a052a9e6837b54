"""Bringing a deployment about: once, again, changed, interrupted, failed, rolled back."""

import pytest
from moto.sagemaker.models import sagemaker_backends

from serving.aws.deployment.apply import agrees, apply
from serving.errors import DeployError
from tests.unit.aws.deployment.imitation import NUMBER, REGION
from tests.unit.aws.deployment.requests import BATCH, COMPONENTS, SCALED, TO_ZERO, TOKENS, endpoint


def test_a_first_run_makes_all_of_it_and_says_so(aws):
    applied = aws.apply(endpoint(*SCALED, *TOKENS))
    assert applied.num_changes == 7
    assert aws.client("sagemaker").describe_endpoint(EndpointName="chat")["EndpointStatus"] == "InService"
    scaling = aws.client("application-autoscaling")
    assert len(scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]) == 2
    assert "endpoint chat: created" in aws.lines


@pytest.mark.parametrize(
    "words", [(), (*SCALED, *TOKENS), (*COMPONENTS, *TO_ZERO), COMPONENTS], ids=["plain", "scaled", "to zero", "components"]
)
def test_a_second_run_changes_nothing_and_says_so(aws, words):
    aws.apply(endpoint(*words))
    aws.operations.clear()
    aws.lines.clear()
    assert aws.apply(endpoint(*words)).num_changes == 0
    assert aws.operations
    assert aws.changes == []
    assert all(line.endswith("as it should be") for line in aws.lines)


def test_other_contents_update_the_endpoint_beside_what_runs(aws):
    aws.apply(endpoint(*SCALED))
    aws.operations.clear()
    aws.apply(endpoint(*SCALED, "--env", "TOKENPORT_MAX_MODEL_LEN=4096"))
    # Scaling rests meanwhile, and is registered again.
    assert aws.changes == [
        "CreateModel",
        "CreateEndpointConfig",
        "DeregisterScalableTarget",
        "UpdateEndpoint",
        "RegisterScalableTarget",
        "PutScalingPolicy",
    ]


def test_another_target_changes_the_policy_alone(aws):
    aws.apply(endpoint(*SCALED))
    aws.operations.clear()
    aws.apply(endpoint(*SCALED, "--target-concurrency", "8"))
    assert aws.changes == ["PutScalingPolicy"]


def test_scaling_that_is_no_longer_asked_for_is_taken_away(aws):
    aws.apply(endpoint(*SCALED, "--rollback-latency-ms", "4000"))
    aws.operations.clear()
    aws.apply(endpoint("--env", "TOKENPORT_MAX_NUM_SEQS=64"))
    assert aws.changes == ["DeleteScalingPolicy", "DeregisterScalableTarget", "DeleteAlarms"]


def test_what_scaling_has_made_of_the_number_of_instances_goes_with_it(aws):
    aws.apply(endpoint(*SCALED))
    (variant,) = aws.endpoints["chat"].production_variants
    variant["DesiredInstanceCount"] = variant["CurrentInstanceCount"] = 3
    aws.operations.clear()
    aws.apply(endpoint("--env", "TOKENPORT_MAX_NUM_SEQS=64"))
    assert aws.changes == ["DeleteScalingPolicy", "DeregisterScalableTarget", "UpdateEndpointWeightsAndCapacities"]
    assert aws.client("sagemaker").describe_endpoint(EndpointName="chat")["ProductionVariants"][0]["DesiredInstanceCount"] == 1


def test_another_number_of_copies_is_brought_about(aws):
    aws.apply(endpoint(*COMPONENTS))
    aws.apply(endpoint(*COMPONENTS, "--min-copies", "2", "--max-copies", "2", "--max-instances", "2"))
    assert aws.components["chat"]["RuntimeConfig"] == {"DesiredCopyCount": 2}


def test_copies_that_scaling_has_made_stay(aws):
    aws.apply(endpoint(*COMPONENTS, *TO_ZERO))
    aws.components["chat"]["RuntimeConfig"] = {"DesiredCopyCount": 3}
    aws.apply(endpoint(*COMPONENTS, *TO_ZERO, "--env", "A=1"))
    assert aws.components["chat"]["RuntimeConfig"] == {"DesiredCopyCount": 3}


class Killed(BaseException):
    """As SIGKILL: nothing in the program sees it."""


@pytest.mark.parametrize("last", ["CreateModel", "DeregisterScalableTarget", "UpdateEndpoint", "RegisterScalableTarget"])
def test_a_run_that_was_killed_between_two_calls_goes_on(aws, monkeypatch, last):
    send = aws.account.send

    def killed(call):
        answer = send(call)
        if call.operation == last:
            raise Killed
        return answer

    aws.apply(endpoint(*SCALED))
    changed = endpoint(*SCALED, "--env", "A=1")
    with monkeypatch.context() as patched:
        patched.setattr(aws.account, "send", killed)
        with pytest.raises(Killed):
            aws.apply(changed)
    aws.apply(changed)
    assert len(aws.client("application-autoscaling").describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]) == 1
    assert aws.apply(changed).num_changes == 0


def test_what_aws_returns_in_another_order_or_with_more_to_it_is_the_same():
    assert agrees({"a": [{"b": 1}, {"c": 2.0}]}, {"a": [{"c": 2, "d": 3}, {"b": 1}], "e": 4})
    assert not agrees({"a": [{"b": 1}]}, {"a": [{"b": 1}, {"b": 2}]})
    assert not agrees({"a": {"b": 1}}, {"a": {}})


@pytest.mark.parametrize("operation", ["CreateEndpointConfig", "PutMetricAlarm", "CreateEndpoint", "PutScalingPolicy"])
def test_a_run_that_was_stopped_goes_on_where_it_was(aws, operation):
    aws.refused[operation] = "no more quota"
    with pytest.raises(DeployError):
        aws.apply(endpoint(*SCALED))
    made = set(aws.changes) - {operation}
    aws.refused.clear()
    aws.operations.clear()
    aws.apply(endpoint(*SCALED))
    assert operation in aws.changes
    assert not made & set(aws.changes)
    assert aws.apply(endpoint(*SCALED)).num_changes == 0


def test_a_failure_says_what_aws_said_and_what_is_left(aws):
    aws.refused["CreateEndpoint"] = "The account-level service limit\nis 0 Instances"
    with pytest.raises(DeployError) as raised:
        aws.apply(endpoint())
    told = str(raised.value)
    assert "The account-level service limit is 0 Instances" in told
    assert "\n" not in told
    assert "model chat-" in told
    assert "tokenport deploy destroy chat" in told


def test_an_update_that_alarms_rolled_back_is_a_failure_with_the_reason(aws):
    aws.apply(endpoint())
    aws.rolls_back = True
    with pytest.raises(DeployError, match=r"rolled back .*alarm chat-5xx went off.*what ran before runs on"):
        aws.apply(endpoint("--env", "A=1"))


@pytest.mark.parametrize("failure", ["rolled back", "refused"])
def test_after_an_update_that_failed_what_runs_on_scales_again(aws, failure):
    aws.apply(endpoint(*SCALED))
    aws.rolls_back = failure == "rolled back"
    if failure == "refused":
        aws.refused["UpdateEndpoint"] = "the account-level service limit is 1 Instances"
    with pytest.raises(DeployError, match="its scaling is back"):
        aws.apply(endpoint(*SCALED, "--env", "A=1"))
    scaling = aws.client("application-autoscaling")
    assert len(scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]) == 1
    assert len(scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]) == 1


def test_scaling_that_cannot_come_back_is_told(aws):
    aws.apply(endpoint(*SCALED))
    aws.rolls_back = True
    aws.refused["RegisterScalableTarget"] = "not now"
    with pytest.raises(DeployError, match=r"rolled back .*its scaling is not back: RegisterScalableTarget: .*not now"):
        aws.apply(endpoint(*SCALED, "--env", "A=1"))


def test_a_job_that_failed_is_not_said_to_go_on(aws):
    aws.apply(endpoint(*BATCH))
    (job,) = sagemaker_backends[NUMBER][REGION].transform_jobs.values()
    job.transform_job_status = "Failed"
    job.failure_reason = "the container did not answer"
    with pytest.raises(DeployError, match=r"the container did not answer.*another --batch-output") as raised:
        aws.apply(endpoint(*BATCH))
    assert "the same command goes on" not in str(raised.value)


def test_an_endpoint_that_failed_is_made_anew(aws):
    aws.apply(endpoint())
    aws.endpoints["chat"].endpoint_status = "Failed"
    aws.endpoints["chat"].failure_reason = "the container did not pass the ping health check"
    aws.operations.clear()
    aws.apply(endpoint())
    assert aws.changes == ["DeleteEndpoint", "CreateEndpoint"]
    assert any("did not pass the ping health check" in line for line in aws.lines)


def test_an_endpoint_that_serves_a_mixture_is_not_deleted(aws):
    aws.apply(endpoint())
    aws.endpoints["chat"].endpoint_status = "UpdateRollbackFailed"
    with pytest.raises(DeployError, match="UpdateRollbackFailed"):
        aws.apply(endpoint())
    assert "DeleteEndpoint" not in aws.changes


def test_somebody_elses_endpoint_of_the_name_is_left_alone(aws):
    sagemaker = aws.client("sagemaker")
    role = "arn:aws:iam::123456789012:role/other"
    sagemaker.create_model(ModelName="other", PrimaryContainer={"Image": "x"}, ExecutionRoleArn=role)
    variant = {"VariantName": "AllTraffic", "ModelName": "other", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="other", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="chat", EndpointConfigName="other")
    target = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/chat/variant/AllTraffic"}
    dimension = "sagemaker:variant:DesiredInstanceCount"
    scaling = aws.client("application-autoscaling")
    scaling.register_scalable_target(**target, ScalableDimension=dimension, MinCapacity=1, MaxCapacity=2)
    with pytest.raises(DeployError, match="did not make: endpoint chat; choose another --name"):
        aws.apply(endpoint())
    assert aws.changes == []


def test_waiting_ends_at_its_deadline_and_says_in_what_state(aws):
    aws.apply(endpoint())
    aws.endpoints["chat"].endpoint_status = "Updating"
    with pytest.raises(DeployError, match="endpoint chat is still Updating after 0 s"):
        apply(endpoint(), aws.account, aws.waiting(deadline_s=0.0), aws.lines.append)
    assert "endpoint chat: Updating (0 s)" in aws.lines


def test_a_component_is_changed_copy_by_copy(aws):
    aws.apply(endpoint(*COMPONENTS))
    aws.operations.clear()
    aws.apply(endpoint(*COMPONENTS, "--env", "A=1"))
    assert aws.changes == ["CreateModel", "UpdateInferenceComponent"]


def test_waking_from_zero_is_wired_to_the_policy_that_aws_named(aws):
    aws.apply(endpoint(*COMPONENTS, *TO_ZERO))
    (alarm,) = aws.client("cloudwatch").describe_alarms(AlarmNames=["chat-wake"])["MetricAlarms"]
    assert alarm["AlarmActions"] == ["arn:aws:autoscaling:policy/chat-wake"]


def test_credentials_of_another_account_deploy_nothing(aws):
    with pytest.raises(DeployError, match="of account 123456789012, and the deployment is for 210987654321"):
        aws.account.check_number("210987654321")
