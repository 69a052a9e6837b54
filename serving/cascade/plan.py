"""The file of a cascade together with its policy, checked against each other. Nothing is started or asked for it."""

import logging
from dataclasses import dataclass
from pathlib import Path

from serving.cascade.config import AUTO, CascadeConfig, LocalTier, VllmTier, read_cascade, refuse_taken_names
from serving.cascade.policy import Policy
from serving.cascade.policy_file import read_policy, unknown_signals
from serving.cascade.validity import refuse_other_model, refuse_other_sampling, say_unknown
from serving.errors import CascadeError, SettingsError

logger = logging.getLogger("tokenport.cascade")


@dataclass(frozen=True)
class Plan:
    """`policy` is None where tiers are asked in order, each if those before it fail."""

    config: CascadeConfig
    policy: Policy | None

    def check_served_name(self, name: str) -> None:
        """`name`: of the model that this server will load.

        Raises:
            SettingsError: a tier has it too.
        """
        refuse_taken_names([AUTO, *(tier.name for tier in self.config.tiers)], [name])

    def check_local(self, folder: Path) -> None:
        """`folder`: of the model that this server is about to load.

        Raises:
            SettingsError: the policy was fitted for another one.
        """
        if self.policy is not None:
            local = next(tier.name for tier in self.config.tiers if isinstance(tier, LocalTier))
            refuse_other_model(self.policy, local, folder)


def read_plan(path: Path) -> Plan:
    """The cascade that the file `path` describes.

    Raises:
        SettingsError: file or policy are wrong, do not fit each other, or the policy is stale.
    """
    config = read_cascade(path)
    if config.policy is None:
        logger.warning("the cascade has no policy: for auto a tier is asked only if those before it fail or do not take the request")
        return Plan(config, None)
    try:
        policy = read_policy(Path(config.policy))
    except CascadeError as error:
        raise SettingsError(f"cascade: policy: {error}") from error
    if unknown := unknown_signals(policy):
        raise SettingsError(f"cascade: {config.policy} asks for signals that a server has not: {', '.join(unknown)}; fit it without them")
    fitted, names = [*(stage.tier for stage in policy.stages), policy.last_tier], [tier.name for tier in config.tiers]
    if names[: len(fitted)] != fitted:
        raise SettingsError(f"cascade: {config.policy} is for the tiers {', '.join(fitted)}, in this order; {path} begins otherwise")
    _refuse_stale(config, policy)
    return Plan(config, policy)


def _refuse_stale(config: CascadeConfig, policy: Policy) -> None:
    refuse_other_sampling(policy, {tier.name: tier.sampling for tier in config.tiers})
    for tier in config.tiers:
        if isinstance(tier, VllmTier):
            refuse_other_model(policy, tier.name, Path(tier.model))
        elif not isinstance(tier, LocalTier):
            say_unknown(policy, tier.name)
