"""The printed policies allow what is done, by name, and no more."""

import json
from dataclasses import replace

import cfnlint.api
import pytest

from serving.aws.deployment.deployer_policy import deployer_policy
from serving.aws.deployment.endpoint_description import describe_endpoint
from serving.aws.deployment.lambda_description import describe_function
from serving.aws.deployment.policies import caller_policy, execution_policy, function_policy, place_of
from tests.unit.aws.deployment.functions import BEDROCK, MODEL, PACKAGE, PLACE, SAGEMAKER
from tests.unit.aws.deployment.requests import BATCH, KINDS, PLAIN, ROLE, request

PROFILES = "arn:aws:bedrock:us-east-1:123456789012:inference-profile"
WITHOUT_RESOURCE = {
    "application-autoscaling:DescribeScalableTargets",
    "application-autoscaling:DescribeScalingPolicies",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:PutMetricData",
    "ecr:GetAuthorizationToken",
    "sagemaker:ListEndpointConfigs",
    "sagemaker:ListInferenceComponents",
    "sagemaker:ListModels",
    "sagemaker:ListTransformJobs",
}


def deployer(words):
    made = request(*words)
    return deployer_policy(place_of(ROLE, "us-east-1"), describe_endpoint(made), role_arn=ROLE, service="sagemaker")


def policies():
    for name, words in {**KINDS, "batch": (*PLAIN, *BATCH)}.items():
        yield f"execution role, {name}", execution_policy(PLACE, request(*words))
        yield f"deployer, {name}", deployer(words)
    for made in (BEDROCK, SAGEMAKER):
        yield "function", function_policy(PLACE, made.name, made.bedrock_model, made.endpoint, made.component)
        yield "deployer, function", deployer_policy(PLACE, describe_function(made, PACKAGE), role_arn=ROLE, service="lambda")
    yield "caller", caller_policy(PLACE, "ask")


def asking(model, endpoint=None, component=None):
    """What a function's policy says besides its log."""
    return function_policy(PLACE, "ask", model, endpoint, component)["Statement"][1:]


def allowed(policy):
    return {action for statement in policy["Statement"] for action in statement["Action"]}


@pytest.mark.parametrize(("name", "policy"), policies())
def test_no_action_has_a_star_and_no_resource_is_all_but_where_iam_knows_none(name, policy):
    for statement in policy["Statement"]:
        assert all("*" not in action for action in statement["Action"])
        if "*" in statement["Resource"]:
            assert set(statement["Action"]) <= WITHOUT_RESOURCE


def linted(actions):
    statement = {"Effect": "Allow", "Action": sorted(actions), "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    resource = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": document}}
    template = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Policy": resource}}
    return [str(match) for match in cfnlint.api.lint(json.dumps(template), regions=["us-east-1"])]


def test_iam_knows_every_action():
    assert linted({action for _, policy in policies() for action in allowed(policy)}) == []
    assert linted({"sagemaker:InvokeEndpoints"}) != []


@pytest.mark.parametrize("made", [BEDROCK, SAGEMAKER], ids=["of Bedrock", "of an endpoint"])
def test_the_deployer_may_do_all_that_a_function_needs(aws, made):
    layer = aws.client("lambda").publish_layer_version(LayerName="adapter", Content={"ZipFile": PACKAGE})["LayerVersionArn"]
    first, second = (describe_function(replace(made, adapter_layer_arn=layer, memory_mb=size), PACKAGE) for size in (512, 1024))
    aws.apply(first)
    aws.apply(second)
    aws.destroy("ask")
    document = deployer_policy(PLACE, first, role_arn=ROLE, service="lambda")
    assert set(aws.operations) <= {action.partition(":")[2] for action in allowed(document)}
    # Whoever gives a function a layer has to be allowed to read it.
    assert {"Effect": "Allow", "Action": ["lambda:GetLayerVersion"], "Resource": [layer]} in document["Statement"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_deployer_may_do_all_that_a_run_and_its_removal_send(aws, kind):
    aws.apply(describe_endpoint(request(*KINDS[kind])))
    aws.apply(describe_endpoint(request(*KINDS[kind], "--env", "A=1")))
    aws.destroy("chat")
    names = {action.partition(":")[2] for action in allowed(deployer(KINDS[kind]))}
    assert set(aws.operations) <= names


def test_the_model_can_be_read_below_its_prefix_and_nowhere_else():
    statements = execution_policy(PLACE, request(*PLAIN))["Statement"]
    objects, listing = statements[:2]
    assert objects["Resource"] == ["arn:aws:s3:::bucket/llama/*"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["llama/*"]}}


@pytest.mark.parametrize("words", [("--async", "s3://bucket/answers"), (*BATCH, "--batch-output", "s3://bucket/answers")])
def test_answers_are_written_below_their_place_and_not_beside_it(words):
    statements = execution_policy(PLACE, request(*PLAIN, *words))["Statement"]
    (writing,) = [statement for statement in statements if "s3:PutObject" in statement["Action"]]
    assert writing["Resource"] == ["arn:aws:s3:::bucket/answers/*"]


@pytest.mark.parametrize(
    ("words", "group"),
    [
        (PLAIN, "/aws/sagemaker/Endpoints/chat"),
        (KINDS["async"], "/aws/sagemaker/Endpoints/chat"),
        (KINDS["components"], "/aws/sagemaker/InferenceComponents/chat"),
        ((*PLAIN, *BATCH), "/aws/sagemaker/TransformJobs"),
    ],
)
def test_the_container_may_write_the_log_that_sagemaker_keeps_for_its_kind(words, group):
    (logging,) = [each for each in execution_policy(PLACE, request(*words))["Statement"] if "logs:PutLogEvents" in each["Action"]]
    arn = f"arn:aws:logs:us-east-1:123456789012:log-group:{group}"
    assert logging["Resource"] == [arn, f"{arn}:*"]


def test_the_image_can_be_pulled_from_its_repository_in_its_own_account():
    elsewhere = replace(request(*PLAIN).container, image_uri="999999999999.dkr.ecr.eu-west-1.amazonaws.com/team/tokenport@sha256:0")
    text = json.dumps(execution_policy(PLACE, replace(request(*PLAIN), container=elsewhere)))
    assert "arn:aws:ecr:eu-west-1:999999999999:repository/team/tokenport" in text


def test_the_execution_role_is_passed_to_sagemaker_alone():
    (passing,) = [statement for statement in deployer(PLAIN)["Statement"] if statement["Action"] == ["iam:PassRole"]]
    assert passing["Resource"] == [ROLE]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


@pytest.mark.parametrize(
    ("model", "resource"),
    [
        ("amazon.nova-micro-v1:0", "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0"),
        ("arn:aws:bedrock:us-east-1:123456789012:provisioned-model/x", "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/x"),
    ],
)
def test_a_function_may_ask_its_own_model_only(model, resource):
    (statement,) = asking(model)
    assert statement["Resource"] == [resource]
    assert statement["Action"] == ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"]


@pytest.mark.parametrize("model", [MODEL, f"{PROFILES}/{MODEL}"])
def test_a_function_may_ask_the_model_of_an_inference_profile_by_that_profile_only(model):
    profile, behind = asking(model)
    assert profile["Resource"] == [f"{PROFILES}/{MODEL}"]
    assert behind["Resource"] == ["arn:aws:bedrock:*::foundation-model/amazon.nova-micro-v1:0"]
    assert behind["Condition"] == {"StringEquals": {"bedrock:InferenceProfileArn": f"{PROFILES}/{MODEL}"}}


def test_a_function_of_an_endpoint_may_ask_nothing_else():
    (statement,) = asking(None, "Chat", "chat-B")
    assert statement["Action"] == ["sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream"]
    own = "arn:aws:sagemaker:us-east-1:123456789012"
    assert statement["Resource"] == [f"{own}:endpoint/chat", f"{own}:inference-component/chat-b"]


def statements_with(action, words):
    return [statement for statement in deployer(words)["Statement"] if action in statement["Action"]]


def test_the_deployer_may_touch_what_has_the_deployments_names_and_no_others():
    alarm = "arn:aws:cloudwatch:us-east-1:123456789012:alarm"
    own, of_scaling = statements_with("cloudwatch:DeleteAlarms", KINDS["scaled"])
    assert own["Resource"] == [f"{alarm}:chat-5xx", f"{alarm}:chat-latency", f"{alarm}:chat-wake"]
    assert of_scaling["Resource"] == [
        f"{alarm}:TargetTracking-endpoint/chat/variant/AllTraffic-*",
        f"{alarm}:TargetTracking-inference-component/chat-*",
    ]
    (models,) = statements_with("sagemaker:DeleteModel", PLAIN)
    assert "arn:aws:sagemaker:us-east-1:123456789012:model/chat-??????????" in models["Resource"]


@pytest.mark.parametrize("kind", ["scaled", "to zero", "async"])
def test_the_deployer_has_the_rights_that_a_scalable_target_is_registered_with(kind):
    # https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-prerequisites.html
    needed = {"sagemaker:DescribeEndpoint", "sagemaker:DescribeEndpointConfig", "sagemaker:UpdateEndpointWeightsAndCapacities"}
    assert needed <= allowed(deployer(KINDS[kind]))


def test_the_deployer_may_scale_sagemaker_and_no_other_service():
    (scaling,) = statements_with("application-autoscaling:RegisterScalableTarget", KINDS["scaled"])
    assert scaling["Condition"] == {"StringEquals": {"application-autoscaling:service-namespace": "sagemaker"}}
