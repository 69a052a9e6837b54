"""What `tokenport plan` says to type is what `tokenport deploy endpoint` reads."""

import shlex

import pytest

from serving.aws.deployment.endpoint_options import read_options
from serving.planner.instances import find_instance
from serving.planner.model import model_of
from serving.planner.plan import PlanRequest
from serving.planner.ranking.deployment import deploy_command, settings_of, values_of
from serving.planner.ranking.operation import Target
from serving.planner.ranking.ranking import Ranker
from serving.planner.ranking.sagemaker_values import sagemaker_values
from serving.planner.speed.efficiency import published_efficiency
from serving.planner.speed.speed import Flow
from tests.unit.planner.known_models import CONFIGS

CONFIG = CONFIGS["Llama-3.2-1B"]
FILLED_IN = {
    "NAME": "chat",
    "ROLE_ARN": "arn:aws:iam::123456789012:role/tokenport",
    "IMAGE_URI": "123456789012.dkr.ecr.us-east-1.amazonaws.com/tokenport:1",
    "s3://BUCKET/PREFIX/": "s3://my-bucket/model/",
}
GB = 10**9


@pytest.fixture
def planned():
    """The command, and the settings in it."""
    model, request = model_of("a-model", CONFIG), PlanRequest(context=4096, concurrency=4, gpu_memory_utilization=0.8)
    ranker = Ranker(model, request, Target(Flow(1000, 200, 4)), published_efficiency())
    first = ranker.rank([find_instance("ml.g6.12xlarge")]).winners[0]
    settings, values = settings_of(first, request), values_of(first, model)
    return deploy_command(first, model, settings, values), settings, values


def test_the_command_is_read_with_every_value_of_the_plan(planned):
    command, settings, values = planned
    words = [FILLED_IN.get(word, word) for word in shlex.split(command)]
    request = read_options(words[3:]).request
    assert request.container.environment == settings
    assert request.hosting.instance_type == "ml.g6.12xlarge"
    assert request.hosting.startup_timeout_s == values.startup_timeout_s
    assert request.hosting.download_timeout_s == values.download_timeout_s


def test_what_differs_from_the_engines_default_is_a_setting(planned):
    _, settings, _ = planned
    assert settings["TOKENPORT_GPU_MEMORY_UTILIZATION"] == "0.8"
    assert "TOKENPORT_DTYPE" not in settings
    assert settings["TOKENPORT_MAX_MODEL_LEN"] == "4096"
    assert int(settings["TOKENPORT_MAX_NUM_SEQS"]) >= 4


@pytest.mark.parametrize("size_gb", [1, 16, 140, 500, 1500])
def test_timeouts_grow_with_the_model_within_sagemakers_limits(size_gb):
    instance = find_instance("ml.p5.48xlarge")
    found, larger = sagemaker_values(instance, size_gb * GB, 8), sagemaker_values(instance, 2 * size_gb * GB, 8)
    for name in ("startup_timeout_s", "download_timeout_s"):
        assert 60 <= getattr(found, name) <= getattr(larger, name) <= 3600


def test_what_sagemaker_does_not_allow_is_told():
    assert "3600 s" in sagemaker_values(find_instance("ml.p5.48xlarge"), 800 * GB, 8).notes[0]
    assert "the instance's disks have 125 GB" in sagemaker_values(find_instance("ml.g4dn.xlarge"), 140 * GB, 1).notes[0]


def test_a_volume_is_for_instances_without_disks_of_their_own():
    assert sagemaker_values(find_instance("ml.g6.xlarge"), 16 * GB, 1).volume_gb is None
    assert sagemaker_values(find_instance("ml.inf2.xlarge"), 16 * GB, 1).volume_gb == 46
