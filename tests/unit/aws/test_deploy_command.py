"""`tokenport deploy` as a person runs it: words in, lines and exit code out; once against a real server that imitates AWS."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import boto3
import pytest

from serving.aws.deploy_command import run_deploy
from serving.errors import DeployError
from tests.conftest import ROOT
from tests.s3_server import S3, environment, s3_server
from tests.unit.aws.deployment.requests import PLAIN, SCALED

FUNCTION = ("--name", "ask", "--bedrock", "amazon.nova-micro-v1:0", "--account", "123456789012")
REGION = {"AWS_REGION": "us-east-1"}


@pytest.fixture
def no_network(monkeypatch):
    """Nor credentials."""

    def refuse(*_: object) -> None:
        raise AssertionError("something was sent")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setattr("socket.socket.connect", refuse)


def printed(capsys):
    return json.loads(capsys.readouterr().out)


def exit_code(words):
    try:
        return run_deploy(words, REGION)
    except SystemExit as ended:
        return ended.code


@pytest.mark.usefixtures("no_network")
def test_a_dry_run_shows_every_call_and_sends_nothing(capsys):
    assert run_deploy(["endpoint", *PLAIN, *SCALED, "--dry-run"], {}) == 0
    shown = printed(capsys)
    assert [call["operation"] for call in shown["calls"]] == [
        "CreateModel",
        "CreateEndpointConfig",
        "PutMetricAlarm",
        "CreateEndpoint",
        "RegisterScalableTarget",
        "PutScalingPolicy",
    ]
    assert shown["calls"][0]["parameters"]["PrimaryContainer"]["Environment"] == {"TOKENPORT_MAX_NUM_SEQS": "64"}
    assert [call["operation"] for call in shown["when_it_differs"]][1:3] == ["DeregisterScalableTarget", "UpdateEndpoint"]


@pytest.mark.usefixtures("no_network")
def test_a_dry_run_hides_secrets(capsys):
    run_deploy(["endpoint", *PLAIN, "--env", "TOKENPORT_API_KEY=sk-1", "--dry-run"], {})
    assert "sk-1" not in capsys.readouterr().out


@pytest.mark.usefixtures("no_network")
def test_a_dry_run_of_a_function_shows_what_aws_will_choose_as_such(capsys):
    assert run_deploy(["lambda", *FUNCTION, "--dry-run"], REGION) == 0
    create = {call["operation"]: call["parameters"] for call in printed(capsys)["calls"]}["CreateFunction"]
    assert create["Role"] == "<Arn of role ask-tokenport>"
    assert "bytes, SHA-256" in create["Code"]["ZipFile"]


@pytest.mark.usefixtures("no_network")
def test_a_dry_run_shows_what_would_be_uploaded(capsys, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    run_deploy(["endpoint", *PLAIN, "--model", str(tmp_path), "--upload", "s3://bucket/models", "--dry-run"], {})
    shown = printed(capsys)
    assert shown["calls"][0]["operation"] == "PutObject"
    assert shown["calls"][0]["parameters"]["Key"].endswith("/config.json")


@pytest.mark.usefixtures("no_network")
def test_a_template_says_what_it_does_not_do(capsys, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    words = ["--model", str(tmp_path), "--upload", "s3://bucket/models", "--cloudformation", str(tmp_path / "chat.json")]
    run_deploy(["endpoint", *PLAIN, *words], {})
    assert "put the model's files there; nothing was sent" in capsys.readouterr().out


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("words", [["endpoint", *PLAIN], ["lambda", *FUNCTION]], ids=["endpoint", "lambda"])
def test_a_template_that_cannot_be_written_is_one_line(tmp_path, words):
    with pytest.raises(DeployError, match=r"--cloudformation .*chat\.json cannot be written: No such file"):
        run_deploy([*words, "--cloudformation", str(tmp_path / "none" / "chat.json")], REGION)


def test_an_interruption_is_one_line(capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("serving.aws.deploy_command.describe_endpoint", interrupt)
    assert run_deploy(["endpoint", *PLAIN], REGION) == 130
    assert capsys.readouterr().err == "tokenport: interrupted; the same command goes on where it stopped\n"


@pytest.mark.usefixtures("no_network")
def test_policies_and_templates_need_no_credentials_either(capsys, tmp_path):
    assert run_deploy(["endpoint", *PLAIN, "--policies"], REGION) == 0
    assert printed(capsys).keys() == {"execution_role", "execution_role_trust", "deployer"}
    assert run_deploy(["lambda", *FUNCTION, "--policies"], REGION) == 0
    assert printed(capsys).keys() == {"function_role", "caller", "deployer"}
    assert run_deploy(["lambda", *FUNCTION, "--cloudformation", str(tmp_path / "ask.json")], REGION) == 0
    assert "AWS::Lambda::Url" in (tmp_path / "ask.json").read_text()
    assert (tmp_path / "ask.zip").read_bytes().startswith(b"PK")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["endpiont"], "expected endpoint, lambda, destroy"),
        (["endpoint", *PLAIN, "--instance-typ", "x"], "did you mean --instance-type?"),
        (["endpoint", "--name", "chat"], "required: --model, --image-uri, --role"),
        (["endpoint", *PLAIN, "--name", "-chat"], "--name"),
        (["endpoint", *PLAIN, "--name", "x" * 60], "at most 52"),
        (["endpoint", *PLAIN, "--startup-timeout-s", "30"], "30 is out of range; 60 to 3600"),
        (["endpoint", *PLAIN, "--role", "execution"], "'execution' is not a role's ARN"),
        (["endpoint", *PLAIN, "--upload", "s3://BUCKET/PREFIX/"], "s3://bucket/prefix is"),
        (["endpoint", *PLAIN, "--env", "A"], "'A' is not KEY=VALUE"),
        (["endpoint", *PLAIN, "--instance-type", "g6.xlarge"], "ml.g6.2xlarge is"),
        (["endpoint", *PLAIN, "--target-concurrency", "inf"], "inf is out of range; at least 1"),
        (["endpoint", *PLAIN, "--metrics-namespace", "AWS/SageMaker"], "beginning with neither AWS/ nor a colon"),
        (["endpoint", *PLAIN, "--metrics-namespace", ""], "'' is not a CloudWatch namespace"),
        (["lambda", *FUNCTION, "--bedrock", "no such model"], "'no such model' is not what Bedrock knows a model by"),
        (["lambda", *FUNCTION, "--timeout-s", "901"], "30 to 900"),
        (["destroy"], "required: NAME"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_says_what_is_right(capsys, words, told):
    assert exit_code(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--name", "ask", "--account", "123456789012"), "one of the two"),
        ((*FUNCTION, "--endpoint", "chat"), "one of the two"),
        ((*FUNCTION, "--component", "chat"), "--endpoint"),
        (("--name", "ask", "--endpoint", "chat"), "--account"),
    ],
)
def test_what_cannot_be_together_in_a_function_is_refused(words, told):
    with pytest.raises(DeployError, match=told):
        run_deploy(["lambda", *words], REGION)


@pytest.mark.usefixtures("no_network")
def test_a_part_of_aws_that_has_its_own_names_needs_its_own_layer(capsys):
    words = ["lambda", *FUNCTION, "--region", "cn-north-1", "--policies"]
    with pytest.raises(DeployError, match="--adapter-layer is needed in the partition aws-cn"):
        run_deploy(words, {})
    run_deploy([*words, "--adapter-layer", "arn:aws-cn:lambda:cn-north-1:041581134020:layer:LambdaAdapterLayerX86:26"], {})
    assert "arn:aws-cn:bedrock:cn-north-1::foundation-model/" in capsys.readouterr().out


@pytest.mark.usefixtures("no_network")
def test_without_a_region_it_says_how_to_give_one():
    with pytest.raises(DeployError, match="--region"):
        run_deploy(["lambda", *FUNCTION, "--dry-run"], {"AWS_REGION": ""})


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as running:
        yield running


def tokenport(server, *words):
    environ = environment(server.endpoint) | {"PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "serving", "deploy", *words]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_deploys_changes_nothing_again_and_destroys(server, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    server.client.create_bucket(Bucket="bucket")
    words = (*PLAIN, *SCALED, "--model", str(model), "--upload", "s3://bucket/models")
    first, second = tokenport(server, "endpoint", *words), tokenport(server, "endpoint", *words)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == "chat: 6 changes\n"
    assert second.stdout == "chat: nothing to change\n"
    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "SECRETEXAMPLE", "region_name": "us-east-1"}
    sagemaker = boto3.client("sagemaker", endpoint_url=server.endpoint, **keys)
    assert sagemaker.describe_endpoint(EndpointName="chat")["EndpointStatus"] == "InService"
    would_go = json.loads(tokenport(server, "destroy", "chat", "--dry-run").stdout)["calls"]
    assert [call["operation"] for call in would_go][-2:] == ["DeleteEndpointConfig", "DeleteModel"]
    gone = tokenport(server, "destroy", "chat", "--delete-artifacts")
    assert gone.stdout == "chat: 6 resources deleted\n", gone.stderr
    assert sagemaker.list_models()["Models"] == []
    assert server.client.list_objects_v2(Bucket="bucket")["KeyCount"] == 0


def test_what_aws_refuses_is_one_line(server):
    failed = tokenport(server, "endpoint", *PLAIN, "--role", "arn:aws:iam::210987654321:role/other")
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert line.startswith("tokenport: the credentials are of account 123456789012")
