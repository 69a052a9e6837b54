"""From a plan to an engine: its tiers made, with what each needs. Nothing is started or asked yet."""

from collections.abc import Mapping

from serving.cascade.answers import Rules
from serving.cascade.breaker import Breaker
from serving.cascade.budget import Budget
from serving.cascade.chain import Limits
from serving.cascade.config import BedrockTier, CascadeConfig, LocalTier, OpenAITier, SageMakerTier, TierConfig, VllmTier
from serving.cascade.costs import Meter
from serving.cascade.engine import CascadeEngine
from serving.cascade.local_model import LocalModel
from serving.cascade.metrics import IDLE_COST, IS_OPEN, begin_at_zero
from serving.cascade.openai_model import OpenAIModel
from serving.cascade.plan import Plan
from serving.cascade.second_engine import SecondEngine
from serving.cascade.sticky import Sticky
from serving.cascade.tier import Tier
from serving.engine.interface import Engine, RemoteModel
from serving.errors import SettingsError
from serving.settings import Settings

_REGION = "AWS_REGION"
"""SageMaker and Lambda set it; botocore looks at AWS_DEFAULT_REGION only."""
_ASKED = {"messages": [{"role": "user", "content": "hi"}]}
_JUDGED = _ASKED | {"logprobs": True, "top_logprobs": 2}


def build_cascade(plan: Plan, local: Engine, settings: Settings, environ: Mapping[str, str]) -> CascadeEngine:
    """The cascade of `plan` around `local`, the engine of this process. `environ` has the variables that the plan names.

    Raises:
        StartError: a tier cannot be had as it is described.
    """
    config = plan.config
    if config.budget is not None and config.budget.per == "key" and not settings.api_key:
        raise SettingsError("cascade: budget.per is key, and the server has no API keys: set TOKENPORT_API_KEY, or per: all")
    seconds = {tier.name: SecondEngine(tier, settings, environ) for tier in config.tiers if isinstance(tier, VllmTier)}
    models = {tier.name: _model(tier, local, seconds, environ) for tier in config.tiers}
    _refuse_unjudgeable(plan, models)
    _refuse_sampling_for_nothing(config, models)
    rules = Rules(
        tiers=[_tier(tier, models[tier.name], config) for tier in config.tiers],
        policy=plan.policy,
        limits=Limits(config.first_byte_s, config.hold_ms / 1000, config.attempts, config.cost_limit_usd),
        deadline_s=config.deadline_s,
        budget=None if config.budget is None else Budget(config.budget),
        sticky=Sticky(config.sticky_s),
    )
    return CascadeEngine(local, rules, list(seconds.values()))


def _model(tier: TierConfig, local: Engine, seconds: Mapping[str, SecondEngine], environ: Mapping[str, str]) -> RemoteModel:
    who = f"the tier {tier.name}"
    match tier:
        case LocalTier():
            return LocalModel(local)
        case VllmTier():
            return seconds[tier.name].model()
        case OpenAITier():
            return _openai_model(who, tier, environ)
        # botocore takes long to import: only those with a tier on AWS pay for it.
        case SageMakerTier():
            from serving.aws.sagemaker_model import SageMakerModel

            return SageMakerModel(tier.endpoint, tier.component, model=tier.model, region=tier.region or environ.get(_REGION), who=who)
        case BedrockTier():
            from serving.aws.bedrock_model import BedrockModel

            return BedrockModel(tier.model, region=tier.region or environ.get(_REGION), who=who)


def _openai_model(who: str, tier: OpenAITier, environ: Mapping[str, str]) -> OpenAIModel:
    key = environ.get(tier.api_key_env) if tier.api_key_env is not None else None
    if tier.api_key_env is not None and not key:
        raise SettingsError(f"cascade: {who}: api_key_env: the variable {tier.api_key_env} is not set")
    try:
        return OpenAIModel(who, tier.url, tier.model, api_key=key, ca_file=tier.ca)
    except OSError as error:
        raise SettingsError(f"cascade: {who}: ca: {tier.ca} has no certificates to read: {error}") from error


def _tier(config: TierConfig, model: RemoteModel, cascade: CascadeConfig) -> Tier:
    tier = Tier(
        name=config.name,
        model=model,
        meter=Meter(config.price),
        breaker=Breaker(cascade.breaker.failures, cascade.breaker.cooldown_s),
        takes=config.takes,
        sampling=config.sampling,
        is_local=isinstance(config, LocalTier),
        tells_running_usage=isinstance(config, LocalTier | VllmTier),
    )
    begin_at_zero(tier.name)
    IDLE_COST.labels(tier.name).set_function(tier.meter.idle_usd)
    IS_OPEN.labels(tier.name).set_function(lambda: float(tier.breaker.is_open))
    return tier


def _refuse_unjudgeable(plan: Plan, models: Mapping[str, RemoteModel]) -> None:
    for stage in plan.policy.stages if plan.policy is not None else ():
        if stage.after is not None and (field := models[stage.tier].cannot_honour("chat", _JUDGED)) is not None:
            raise SettingsError(f"cascade: the tier {stage.tier} tells no {field}, by which the policy judges its answers; fit it without")


def _refuse_sampling_for_nothing(config: CascadeConfig, models: Mapping[str, RemoteModel]) -> None:
    for tier in config.tiers:
        if (field := models[tier.name].cannot_honour("chat", _ASKED | tier.sampling)) is not None:
            raise SettingsError(f"cascade: the tier {tier.name}: sampling.{field}: there is nothing for it there; leave it out")
