import pytest
from moto import mock_aws

from tests.unit.aws.deployment.imitation import Imitation


@pytest.fixture
def aws(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield Imitation()
