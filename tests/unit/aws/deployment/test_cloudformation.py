"""The template says what the calls do, and cfn-lint, which knows CloudFormation's schemas, has nothing against it."""

import itertools
import json

import cfnlint.api
import pytest

from serving.aws.deployment.cloudformation import template
from serving.aws.deployment.description import TAG
from serving.aws.deployment.endpoint_description import describe_endpoint
from serving.aws.deployment.lambda_description import describe_function
from serving.errors import DeployError
from tests.unit.aws.deployment.functions import BEDROCK, PACKAGE, SAGEMAKER
from tests.unit.aws.deployment.requests import BATCH, KINDS, PLAIN, endpoint, request

DEPLOYMENTS = {name: describe_endpoint(request(*words)) for name, words in KINDS.items()} | {
    "function of Bedrock": describe_function(BEDROCK, PACKAGE),
    "function of an endpoint": describe_function(SAGEMAKER, PACKAGE),
}


@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=list(DEPLOYMENTS))
def test_cfn_lint_has_nothing_against_it(deployment):
    assert [str(match) for match in cfnlint.api.lint(json.dumps(template(deployment)), regions=["us-east-1"])] == []


def test_cfn_lint_would_see_a_wrong_property():
    written = template(DEPLOYMENTS["plain"])
    written["Resources"]["Model"]["Properties"]["Imagee"] = "x"
    assert cfnlint.api.lint(json.dumps(written), regions=["us-east-1"])


@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=list(DEPLOYMENTS))
def test_each_resource_waits_for_the_one_before_or_refers_to_it(deployment):
    resources = template(deployment)["Resources"]
    for before, name in itertools.pairwise(resources):
        references = (json.dumps({"Ref": before}), json.dumps({"Fn::GetAtt": [before, "Arn"]}))
        refers = any(reference in json.dumps(resources[name]["Properties"]) for reference in references)
        assert refers or resources[name]["DependsOn"] == before


def test_the_order_is_that_of_the_calls():
    resources = template(DEPLOYMENTS["scaled"])["Resources"]
    assert list(resources)[:5] == ["Model", "EndpointConfig", "Alarm5xx", "AlarmLatency", "Endpoint"]


def test_what_changes_keeps_its_place_in_the_template_and_changes_its_name():
    first, second = (template(endpoint(*words))["Resources"] for words in ((), ("--env", "A=1")))
    assert first.keys() == second.keys()
    assert first["Model"]["Properties"]["ModelName"] != second["Model"]["Properties"]["ModelName"]


def test_the_template_updates_as_the_calls_do():
    deployment = endpoint("--traffic", "canary")
    properties = template(deployment)["Resources"]["Endpoint"]["Properties"]
    (update,) = [resource.update for resource in deployment.resources if resource.kind == "endpoint"]
    assert properties["DeploymentConfig"] == update.parameters["DeploymentConfig"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=list(DEPLOYMENTS))
def test_what_a_stack_makes_is_not_marked_as_made_by_the_command(deployment):
    assert TAG not in json.dumps(template(deployment))


def test_the_alarm_that_wakes_refers_to_its_policy():
    assert template(DEPLOYMENTS["to zero"])["Resources"]["AlarmWake"]["Properties"]["AlarmActions"] == [{"Ref": "ScalingPolicyWake"}]


def test_a_job_cannot_be_written():
    with pytest.raises(DeployError, match="no batch transform jobs"):
        template(describe_endpoint(request(*PLAIN, *BATCH)))
