"""What goes wrong on the way to AWS, in one line that says what to do."""

import os

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from serving.aws.deployment.account import Absent, Account, RoleNotKnown, partition_of, settled_region
from serving.aws.deployment.description import Call
from serving.errors import DeployError
from tests.conftest import free_port

CALL = Call("sagemaker", "DescribeModel", {"ModelName": "chat"})
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "SECRETEXAMPLE", "region_name": "us-east-1"}


def answering(code, message="no\n more"):
    session = boto3.session.Session(**KEYS)
    answer = AWSResponse("https://aws", 400, {}, None), {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {}}
    session.events.register("before-call", lambda **_: answer)
    return Account(session)


def told_of(account, call=CALL):
    with pytest.raises(DeployError) as raised:
        account.send(call)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("ResourceLimitExceeded", "DescribeModel: AWS answers ResourceLimitExceeded: no more"),
        ("AccessDeniedException", "--policies prints what the deployer needs"),
        ("ExpiredTokenException", "renew the credentials"),
    ],
)
def test_an_answer_is_told_with_what_to_do(code, told):
    assert told in told_of(answering(code))


def test_who_may_not_read_prices_is_told_the_right_that_it_takes():
    call = Call("pricing", "GetProducts", {"ServiceCode": "AmazonSageMaker"})
    assert told_of(answering("AccessDeniedException"), call).endswith("it takes the right pricing:GetProducts")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ValidationException", 'Could not find model "arn:aws:sagemaker:us-east-1:123456789012:model/chat".'),
        ("ResourceNotFoundException", "Function not found"),
        ("NoSuchEntity", "The role with name x cannot be found."),
        ("ObjectNotFoundException", "No scalable target registered"),
    ],
)
def test_what_is_not_there_is_known_from_what_was_refused(code, message):
    assert answering(code, message).attempt(CALL) is None
    with pytest.raises(Absent):
        answering(code, message).send(CALL)


def test_what_was_refused_is_not_taken_for_absent():
    with pytest.raises(DeployError, match="Cannot update in-progress endpoint"):
        answering("ValidationException", "Cannot update in-progress endpoint").attempt(CALL)


def test_a_role_that_is_not_known_yet_is_told_apart():
    with pytest.raises(RoleNotKnown):
        answering("InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda.").send(CALL)


def test_a_parameter_that_aws_does_not_know_is_told_before_anything_is_sent():
    assert "Nmae" in told_of(answering("X"), Call("sagemaker", "DescribeModel", {"Nmae": "chat"}))


def test_without_credentials_it_says_how_to_give_them(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in nothing.items():
        monkeypatch.setenv(name, value)
    assert "AWS_PROFILE" in told_of(Account(boto3.session.Session(region_name="us-east-1")))


def test_an_endpoint_that_does_not_answer_is_told_with_the_way_there(monkeypatch):
    monkeypatch.setattr("serving.aws.deployment.account._NUM_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "check network and AWS_ENDPOINT_URL" in told_of(Account(boto3.session.Session(**KEYS)))


@pytest.mark.parametrize("url", ["garbage", "http://127.0.0.1:1x"])
def test_an_endpoint_that_is_no_address_is_told(monkeypatch, url):
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    assert "check AWS_ENDPOINT_URL" in told_of(Account(boto3.session.Session(**KEYS)))


def test_an_answer_without_a_word_is_told_by_its_code():
    assert told_of(answering("ThrottlingException", None)) == "DescribeModel: AWS answers ThrottlingException: no more is told"


def test_a_file_on_whose_way_the_connection_goes_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("serving.aws.deployment.account._NUM_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DeployError, match="PutObject: cannot reach AWS"):
        Account(boto3.session.Session(**KEYS)).send_file(tmp_path / "file", "bucket", "key", {})


def test_the_region_said_goes_before_the_environments():
    assert settled_region("eu-west-1", {"AWS_REGION": "us-east-1"}) == "eu-west-1"
    assert settled_region(None, {"AWS_REGION": "us-east-1"}) == "us-east-1"


def test_each_part_of_aws_is_known_by_its_regions():
    assert [partition_of(region) for region in ("eu-west-1", "cn-north-1", "us-gov-west-1")] == ["aws", "aws-cn", "aws-us-gov"]
