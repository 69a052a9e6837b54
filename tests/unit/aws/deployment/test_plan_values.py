"""What the planner settled, taken over: its file as defaults, and the command that it prints."""

import json
import shlex

import pytest

from serving.aws.deployment.endpoint_options import read_options
from serving.errors import DeployError
from serving.planner.commands import run_plan
from tests.unit.aws.deployment.requests import IMAGE, ROLE

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}
WORDS = ("--name", "chat", "--model", "s3://bucket/llama", "--image-uri", IMAGE, "--role", ROLE)


@pytest.fixture
def plan(tmp_path, capsys):
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert run_plan([str(folder), "--context", "4096", "--json"], {}) == 0
    file = tmp_path / "plan.json"
    file.write_text(capsys.readouterr().out)
    return file


def winners(plan):
    return json.loads(plan.read_text())["winners"]


def test_the_best_instance_and_all_that_was_settled_for_it_are_the_defaults(plan):
    best = winners(plan)[0]
    request = read_options([*WORDS, "--plan", str(plan)]).request
    assert request.hosting.instance_type == best["instance"]
    assert request.hosting.startup_timeout_s == best["sagemaker"]["ContainerStartupHealthCheckTimeoutInSeconds"]
    assert request.container.environment == best["settings"]


def test_an_instance_that_is_named_has_its_own_values(plan):
    other = next(winner for winner in winners(plan) if winner["instance"] != winners(plan)[0]["instance"])
    request = read_options([*WORDS, "--plan", str(plan), "--instance-type", other["instance"]]).request
    assert request.container.environment == other["settings"]


def test_a_job_does_not_run_on_the_host_that_was_planned_for_endpoints(plan):
    words = ["--model", "s3://bucket/llama.tar.gz", "--batch", "s3://bucket/in", "--batch-output", "s3://bucket/out"]
    assert winners(plan)[0]["sagemaker"]["InferenceAmiVersion"] is not None
    assert read_options([*WORDS, "--plan", str(plan), *words]).request.hosting.ami_version is None


def test_what_is_said_goes_before_the_plan(plan):
    words = ["--startup-timeout-s", "1200", "--env", "TOKENPORT_MAX_MODEL_LEN=2048"]
    request = read_options([*WORDS, "--plan", str(plan), *words]).request
    assert request.hosting.startup_timeout_s == 1200
    assert request.container.environment["TOKENPORT_MAX_MODEL_LEN"] == "2048"


def test_the_plan_knows_how_many_sequences_run_at_once(plan):
    limit = int(winners(plan)[0]["settings"]["TOKENPORT_MAX_NUM_SEQS"])
    request = read_options([*WORDS, "--plan", str(plan), "--max-instances", "2", "--target-concurrency", "5"]).request
    assert request.scaling is not None
    assert request.scaling.max_num_seqs == limit


def test_the_command_that_the_planner_prints_is_one(plan):
    best = winners(plan)[0]
    fill = {"s3://BUCKET/PREFIX/": "s3://bucket/models/", "NAME": "chat", "ROLE_ARN": ROLE, "IMAGE_URI": IMAGE}
    words = [fill.get(word, word) for word in shlex.split(best["deploy_command"])]
    assert words[:3] == ["tokenport", "deploy", "endpoint"]
    request = read_options(words[3:]).request
    assert request.hosting.instance_type == best["instance"]
    assert request.container.environment == best["settings"]


@pytest.mark.parametrize(
    ("contents", "told"),
    [("{", "cannot be read"), ("{}", "no ranking"), ("[]", "no ranking"), ('{"winners": []}', "no winner for SageMaker")],
)
def test_a_file_that_is_no_ranking_is_told(tmp_path, contents, told):
    (tmp_path / "plan.json").write_text(contents)
    with pytest.raises(DeployError, match=told):
        read_options([*WORDS, "--plan", str(tmp_path / "plan.json")])


def test_an_instance_that_did_not_win_is_told_with_those_that_did(plan):
    with pytest.raises(DeployError, match=r"no winner for ml\.m5\.large; it has ml\."):
        read_options([*WORDS, "--plan", str(plan), "--instance-type", "ml.m5.large"])


def test_without_a_plan_the_instance_has_to_be_said():
    with pytest.raises(DeployError, match="--instance-type"):
        read_options(list(WORDS))
