"""Model folders in S3: sent once, resumed, and only what was sent is deleted."""

import json

import pytest

from serving.aws.deployment.artifacts import carry_out, delete_uploaded, plan_upload
from serving.errors import DeployError
from tests.unit.aws.deployment.requests import PLAIN, endpoint


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "model"
    (model / "rank-0").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "rank-0" / "model.safetensors").write_bytes(b"weights")
    return model


@pytest.fixture
def bucket(aws):
    client = aws.client("s3")
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="models/chat/other", Body=b"not ours")
    return client


def keys(client):
    return {item["Key"] for item in client.list_objects_v2(Bucket="bucket")["Contents"]}


def uploaded(folder):
    return endpoint("--model", str(folder), "--upload", "s3://bucket/models")


def test_the_folder_keeps_its_paths_below_a_prefix_that_names_its_contents(aws, bucket, folder):
    upload = plan_upload(folder, "s3://bucket/models/", "chat")
    assert carry_out(upload, aws.account, aws.lines.append) == 2
    relative = {key.removeprefix(upload.prefix) for key in keys(bucket) if key.startswith(upload.prefix)}
    assert relative == {"config.json", "rank-0/model.safetensors"}
    assert upload.uri.startswith("s3://bucket/models/chat/")
    assert upload.uri.endswith("/")


def test_the_same_contents_are_sent_once(aws, bucket, folder):
    carry_out(plan_upload(folder, "s3://bucket/models", "chat"), aws.account, aws.lines.append)
    aws.operations.clear()
    assert carry_out(plan_upload(folder, "s3://bucket/models", "chat"), aws.account, aws.lines.append) == 0
    assert aws.changes == []


def test_what_was_interrupted_sends_what_is_missing(aws, bucket, folder):
    upload = plan_upload(folder, "s3://bucket/models", "chat")
    carry_out(upload, aws.account, aws.lines.append)
    bucket.delete_object(Bucket="bucket", Key=upload.list_key)
    bucket.put_object(Bucket="bucket", Key=f"{upload.prefix}config.json", Body=b"half")
    assert carry_out(upload, aws.account, aws.lines.append) == 1
    assert bucket.get_object(Bucket="bucket", Key=f"{upload.prefix}config.json")["Body"].read() == b"{}"


def test_other_contents_are_another_prefix(folder):
    first = plan_upload(folder, "s3://bucket/models", "chat").uri
    (folder / "config.json").write_text('{"a": 1}')
    assert plan_upload(folder, "s3://bucket/models", "chat").uri != first


@pytest.mark.parametrize("delete_artifacts", [True, False])
def test_destroy_deletes_what_was_uploaded_only_when_told(aws, bucket, folder, delete_artifacts):
    upload = plan_upload(folder, "s3://bucket/models", "chat")
    carry_out(upload, aws.account, aws.lines.append)
    aws.apply(uploaded(folder))
    aws.destroy("chat", delete_artifacts=delete_artifacts)
    assert (keys(bucket) == {"models/chat/other"}) is delete_artifacts


def test_a_removal_that_was_stopped_still_finds_what_was_uploaded(aws, bucket, folder):
    carry_out(plan_upload(folder, "s3://bucket/models", "chat"), aws.account, aws.lines.append)
    aws.apply(uploaded(folder))
    aws.refused["DeleteObjects"] = "not now"
    with pytest.raises(DeployError, match="Left behind: model chat-"):
        aws.destroy("chat", delete_artifacts=True)
    aws.refused.clear()
    aws.destroy("chat", delete_artifacts=True)
    assert keys(bucket) == {"models/chat/other"}


def test_a_list_that_names_what_is_not_of_the_folder_deletes_none_of_it(aws, bucket, folder):
    upload = plan_upload(folder, "s3://bucket/models", "chat")
    carry_out(upload, aws.account, aws.lines.append)
    listed = [*upload.files, "models/chat/other"]
    bucket.put_object(Bucket="bucket", Key=upload.list_key, Body=json.dumps({"objects": listed}).encode())
    delete_uploaded(aws.account, upload.uri)
    assert keys(bucket) == {"models/chat/other"}


def test_artefacts_that_were_there_are_never_deleted(aws, bucket):
    bucket.put_object(Bucket="bucket", Key="llama/config.json", Body=b"{}")
    aws.apply(endpoint())
    aws.destroy("chat", delete_artifacts=True)
    assert "llama/config.json" in keys(bucket)


def test_a_file_that_cannot_be_read_is_told(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "config.json")

    monkeypatch.setattr("serving.aws.deployment.artifacts._sha256", refuse)
    with pytest.raises(DeployError, match=r"cannot be read: .*Permission denied"):
        plan_upload(folder, "s3://bucket/models", "chat")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(DeployError, match=r"no config\.json"):
        endpoint(*PLAIN, "--model", str(tmp_path), "--upload", "s3://bucket/models")
