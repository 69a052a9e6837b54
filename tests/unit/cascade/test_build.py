"""What is wrong between a cascade's file, its policy, the models and the environment is told before anything is started."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from serving.cascade.build import build_cascade
from serving.cascade.identity import chat_template_hash, model_hash, sampling_hash
from serving.cascade.plan import Plan, read_plan
from serving.cascade.policy import Policy, Rule, Stage
from serving.cascade.policy_file import write_policy
from serving.cascade.second_engine import inherited
from serving.engine.work import Work
from serving.errors import SettingsError
from serving.settings import load_settings
from tests.unit.cascade.scripted import FITTED_ON

LOCAL = {"name": "small", "engine": "local", "price": {"input": 1}}
LARGE = {"name": "large", "engine": "openai", "url": "http://host/v1", "model": "m", "price": {"input": 3, "output": 15}}
SURE = Rule({"logprob_mean": 1.0}, 0.0, (0.0, 1.0), (0.0, 1.0), 0.5)


class Engine:
    """As much of one as is looked at before a start."""

    work = Work()
    model_names = ("model",)


def plan_of(folder: Path, *tiers: dict[str, Any], policy: Policy | None = None, **more: Any) -> Plan:
    if policy is not None:
        write_policy(policy, folder / "policy.json")
        more["policy"] = "policy.json"
    (folder / "cascade.yaml").write_text(yaml.safe_dump({"tiers": list(tiers or (LOCAL, LARGE)), **more}))
    return read_plan(folder / "cascade.yaml")


def build(plan: Plan, folder: Path, environ: dict[str, str] | None = None, **settings: str):
    return build_cascade(plan, Engine(), load_settings([], {"TOKENPORT_CACHE_DIR": str(folder), **settings}), environ or {})


def policy(*tiers: str, valid_for: dict[str, str] | None = None, rule: Rule = SURE) -> Policy:
    *stages, last = tiers or ("small", "large")
    return Policy(tuple(Stage(name, None, rule, 8) for name in stages), last, FITTED_ON, valid_for or {})


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    return folder


def test_auto_and_the_tiers_are_models_beside_the_engines(tmp_path):
    cascade = build(plan_of(tmp_path, policy=policy()), tmp_path)
    assert cascade.model_names == ["model", "auto", "small", "large"]


def test_without_a_policy_it_is_said_that_nothing_is_judged(tmp_path, caplog):
    build(plan_of(tmp_path), tmp_path)
    assert "no policy" in caplog.text


def test_what_a_tier_has_not_done_yet_is_counted_as_zero(tmp_path):
    build(plan_of(tmp_path, LOCAL | {"name": "untouched"}, LARGE), tmp_path)
    counted = {"tier": "untouched"}
    for name, label, value in (
        ("answers", "decision", "accepted"),
        ("tokens", "kind", "rejected"),
        ("cost_usd", "use", "failed"),
        ("failures", "reason", "throttled"),
    ):
        assert REGISTRY.get_sample_value(f"tokenport_cascade_{name}_total", counted | {label: value}) == 0


def test_a_key_is_taken_from_the_variable_that_is_named(tmp_path):
    plan = plan_of(tmp_path, LOCAL, LARGE | {"api_key_env": "LARGE_KEY"})
    build(plan, tmp_path, {"LARGE_KEY": "secret"})
    with pytest.raises(SettingsError, match="the tier large: api_key_env: the variable LARGE_KEY is not set"):
        build(plan, tmp_path)


def test_certificates_that_are_not_there_are_named(tmp_path):
    with pytest.raises(SettingsError, match=r"the tier large: ca: /nowhere\.pem"):
        build(plan_of(tmp_path, LOCAL, LARGE | {"ca": "/nowhere.pem"}), tmp_path)


def test_a_budget_for_each_key_needs_keys(tmp_path):
    plan = plan_of(tmp_path, budget={"usd": 1, "window_s": 60, "per": "key", "then": "refuse"})
    build(plan, tmp_path, TOKENPORT_API_KEY="one")
    with pytest.raises(SettingsError, match="TOKENPORT_API_KEY"):
        build(plan, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"max_model_length": 3}, "did you mean --max-model-len?"),
        ({"max_model_len": "long"}, "--max-model-len"),
        ({"port": 8081}, "arguments.port: the cascade says that itself"),
    ],
)
def test_a_second_engines_arguments_are_checked_as_settings(tmp_path, arguments, told):
    second = {"name": "large", "engine": "vllm", "model": "org/name", "arguments": arguments, "price": {}}
    with pytest.raises(SettingsError) as raised:
        build(plan_of(tmp_path, LOCAL, second), tmp_path)
    assert "the tier large" in str(raised.value)
    assert told in str(raised.value)


def test_a_second_engine_inherits_credentials_and_what_secure_mode_forbids_and_none_of_this_servers_settings(tmp_path):
    environ = {
        "AWS_REGION": "eu-west-1",
        "SAGEMAKER_SECURE_MODE": "true",
        "SAGEMAKER_SECURITY_CONTROLS": "DISALLOW_TRUST_REMOTE_CODE",
        "SAGEMAKER_BIND_TO_PORT": "8080",
        "HF_MODEL_ID": "org/this",
        "SM_VLLM_MAX_MODEL_LEN": "100",
        "TOKENPORT_CASCADE": "cascade.yaml",
        "TOKENPORT_API_KEY": "theirs",
    }
    child = inherited(environ, load_settings([], {"TOKENPORT_CACHE_DIR": str(tmp_path), "TOKENPORT_LOG_LEVEL": "warning"}))
    assert child == {
        "AWS_REGION": "eu-west-1",
        "SAGEMAKER_SECURE_MODE": "true",
        "SAGEMAKER_SECURITY_CONTROLS": "DISALLOW_TRUST_REMOTE_CODE",
        "TOKENPORT_CACHE_DIR": str(tmp_path),
        "TOKENPORT_LOG_LEVEL": "warning",
        "TOKENPORT_DEADLINE_S": "0",
        "TOKENPORT_STREAM_DEADLINE_S": "0",
        "TOKENPORT_CUSTOM_CODE": "false",
    }


@pytest.mark.parametrize("tiers", [("large", "small"), ("small", "other"), ("small", "middle", "large")])
def test_a_policy_for_other_tiers_is_refused(tmp_path, tiers):
    with pytest.raises(SettingsError, match=f"is for the tiers {', '.join(tiers)}, in this order"):
        plan_of(tmp_path, policy=policy(*tiers))


def test_tiers_behind_the_policys_last_are_for_its_failure(tmp_path):
    spare = LARGE | {"name": "spare"}
    assert build(plan_of(tmp_path, LOCAL, LARGE, spare, policy=policy()), tmp_path).model_names[-1] == "spare"


def test_a_policy_that_asks_for_unknown_signals_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="signals that a server has not: mood"):
        plan_of(tmp_path, policy=policy(rule=Rule({"mood": 1.0}, 0.0, (0.0, 1.0), (0.0, 1.0), 0.5)))


def test_a_tier_without_logprobs_cannot_be_judged_by_its_tokens(tmp_path):
    bedrock = {"name": "small", "engine": "bedrock", "model": "m", "region": "us-east-1", "price": {}}
    plan = plan_of(tmp_path, bedrock, LOCAL | {"name": "large"}, policy=policy())
    with pytest.raises(SettingsError, match="the tier small tells no logprobs"):
        build(plan, tmp_path)


def test_a_sampling_that_a_tier_has_nothing_for_is_refused(tmp_path):
    bedrock = {"name": "large", "engine": "bedrock", "model": "m", "region": "us-east-1", "price": {}, "sampling": {"top_k": 5}}
    with pytest.raises(SettingsError, match=r"the tier large: sampling\.top_k: there is nothing for it there"):
        build(plan_of(tmp_path, LOCAL, bedrock), tmp_path)


def test_a_policy_for_the_model_that_is_here_is_taken(tmp_path, model):
    valid_for = {"small.model": model_hash(model), "small.chat_template": chat_template_hash(model)}
    plan_of(tmp_path, policy=policy(valid_for=valid_for)).check_local(model)


def test_a_policy_for_another_model_is_refused(tmp_path, model):
    plan = plan_of(tmp_path, policy=policy(valid_for={"small.model": model_hash(model)}))
    (model / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(SettingsError, match="fitted for another model of the tier small"):
        plan.check_local(model)


def test_a_policy_for_another_chat_template_is_refused(tmp_path, model):
    plan = plan_of(tmp_path, policy=policy(valid_for={"small.chat_template": chat_template_hash(model)}))
    (model / "chat_template.jinja").write_text("other")
    with pytest.raises(SettingsError, match="fitted for another chat_template of the tier small"):
        plan.check_local(model)


def test_a_policy_for_another_model_of_a_second_engine_is_refused(tmp_path, model):
    second = {"name": "large", "engine": "vllm", "model": str(model), "price": {}}
    with pytest.raises(SettingsError, match="fitted for another model of the tier large"):
        plan_of(tmp_path, LOCAL, second, policy=policy(valid_for={"large.model": "sha256:0"}))


def test_a_policy_for_another_sampling_is_refused(tmp_path):
    fitted = policy(valid_for={"small.sampling": sampling_hash({"temperature": 0})})
    for same in (0, 0.0):
        plan_of(tmp_path, LOCAL | {"sampling": {"temperature": same}}, LARGE, policy=fitted)
    with pytest.raises(SettingsError, match="another sampling of the tier small"):
        plan_of(tmp_path, LOCAL | {"sampling": {"temperature": 1}}, LARGE, policy=fitted)


def test_what_of_a_policy_cannot_be_held_to_is_said(tmp_path, caplog):
    plan_of(tmp_path, policy=policy(valid_for={"large.model": "sha256:0"}))
    assert "cannot be seen from here" in caplog.text
