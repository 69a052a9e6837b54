"""The function as a deployment: made, made again, changed, taken away."""

import io
import json
import zipfile
from dataclasses import replace

import pytest

from serving.aws.deployment.lambda_description import describe_function
from serving.aws.deployment.lambda_package import build_package
from serving.errors import DeployError
from tests.unit.aws.deployment.functions import BEDROCK, PACKAGE

MAX_ZIP_BYTES = 50 * 2**20
"""https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""


@pytest.fixture
def layer(aws):
    contents = {"ZipFile": PACKAGE}
    return aws.client("lambda").publish_layer_version(LayerName="adapter", Content=contents)["LayerVersionArn"]


@pytest.fixture
def request_(layer):
    return replace(BEDROCK, adapter_layer_arn=layer)


def test_it_has_a_url_that_streams_to_signed_requests_only(aws, request_):
    applied = aws.apply(describe_function(request_, PACKAGE))
    found = aws.client("lambda").get_function_url_config(FunctionName="ask")
    assert (found["AuthType"], found["InvokeMode"]) == ("AWS_IAM", "RESPONSE_STREAM")
    assert applied.found["function-url ask"]["FunctionUrl"] == found["FunctionUrl"]


def test_the_adapter_streams_what_the_process_on_its_port_answers(aws, request_):
    aws.apply(describe_function(request_, PACKAGE))
    configuration = aws.client("lambda").get_function_configuration(FunctionName="ask")
    variables = configuration["Environment"]["Variables"]
    assert variables["AWS_LAMBDA_EXEC_WRAPPER"] == "/opt/bootstrap"
    assert variables["AWS_LWA_INVOKE_MODE"] == "response_stream"
    assert configuration["Handler"] == "run.sh"
    assert configuration["Timeout"] == 900


def test_a_second_run_changes_nothing(aws, request_):
    aws.apply(describe_function(request_, PACKAGE))
    aws.operations.clear()
    assert aws.apply(describe_function(request_, PACKAGE)).num_changes == 0
    assert aws.changes == []


def test_a_role_too_new_to_be_known_is_waited_for(aws, request_):
    aws.refused_once["CreateFunction"] = "The role defined for the function cannot be assumed by Lambda."
    aws.apply(describe_function(request_, PACKAGE))
    assert aws.changes.count("CreateFunction") == 2
    assert aws.changes.count("CreateRole") == 1


def test_other_settings_and_other_code_are_changed_in_place(aws, request_):
    aws.apply(describe_function(request_, PACKAGE))
    aws.operations.clear()
    other = io.BytesIO(PACKAGE)
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("more", "x")
    aws.apply(describe_function(replace(request_, memory_mb=1024), other.getvalue()))
    assert aws.changes == ["UpdateFunctionConfiguration", "UpdateFunctionCode"]


def test_what_is_no_longer_said_goes(aws, request_):
    named = replace(request_, bedrock_model=None, endpoint="chat", component="chat")
    aws.apply(describe_function(named, PACKAGE))
    aws.apply(describe_function(replace(named, component=None), PACKAGE))
    assert "TOKENPORT_COMPONENT" not in aws.client("lambda").get_function_configuration(FunctionName="ask")["Environment"]["Variables"]
    document = aws.client("iam").get_role_policy(RoleName="ask-tokenport", PolicyName="answer")["PolicyDocument"]
    assert "inference-component" not in json.dumps(document)


def test_another_model_changes_what_the_role_allows_first(aws, request_):
    aws.apply(describe_function(request_, PACKAGE))
    aws.operations.clear()
    aws.apply(describe_function(replace(request_, bedrock_model="amazon.nova-pro-v1:0"), PACKAGE))
    assert aws.changes == ["PutRolePolicy", "UpdateFunctionConfiguration"]


def test_nothing_of_it_stays_and_what_others_made_does(aws, request_):
    iam = aws.client("iam")
    iam.create_role(RoleName="ask-other", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}))
    aws.apply(describe_function(request_, PACKAGE))
    aws.destroy("ask")
    assert aws.client("lambda").list_functions()["Functions"] == []
    assert [role["RoleName"] for role in iam.list_roles()["Roles"]] == ["ask-other"]


def test_somebody_elses_role_of_the_name_is_left_alone(aws, request_):
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    aws.client("iam").create_role(RoleName="ask-tokenport", AssumeRolePolicyDocument=trust)
    with pytest.raises(DeployError, match="did not make: role ask-tokenport"):
        aws.apply(describe_function(request_, PACKAGE))
    assert aws.changes == []


def test_the_zip_is_the_same_for_the_same_sources_and_small():
    assert build_package() == PACKAGE
    assert len(PACKAGE) < MAX_ZIP_BYTES / 1000


def test_the_zip_starts_by_a_script_that_may_be_run():
    with zipfile.ZipFile(io.BytesIO(PACKAGE)) as archive:
        assert archive.getinfo("run.sh").external_attr >> 16 == 0o755
        assert archive.read("run.sh").startswith(b"#!/bin/sh\n")
