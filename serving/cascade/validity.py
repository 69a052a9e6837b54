"""Whether a policy is still about the models that are here: what it was fitted for, and what is found, as hashes.

Of a tier on this machine model and chat template are looked at, of every tier what the cascade's file says of its sampling. What cannot be
looked at is said in the log.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serving.cascade.identity import chat_template_hash, model_hash, sampling_hash
from serving.cascade.policy import Policy
from serving.errors import CascadeError, SettingsError

logger = logging.getLogger("tokenport.cascade")

_OF_FOLDERS: Mapping[str, Callable[[Path], str]] = {"model": model_hash, "chat_template": chat_template_hash}


def refuse_other_sampling(policy: Policy, sampling: Mapping[str, Mapping[str, Any]]) -> None:
    """`sampling`: of each tier.

    Raises:
        SettingsError: the policy was fitted with another one.
    """
    for tier, said in sampling.items():
        fitted = policy.valid_for.get(f"{tier}.sampling")
        if fitted is not None and fitted != sampling_hash(said):
            raise SettingsError(f"cascade: the policy was fitted for another sampling of the tier {tier} than {dict(said)}: fit it again")


def refuse_other_model(policy: Policy, tier: str, folder: Path) -> None:
    """`folder`: of the tier's model.

    Raises:
        SettingsError: the policy was fitted for another model or chat template, or they cannot be read.
    """
    for fact, hash_of in _OF_FOLDERS.items():
        fitted = policy.valid_for.get(f"{tier}.{fact}")
        if fitted is None:
            continue
        if not folder.is_dir():
            say_unknown(policy, tier)
            return
        try:
            found = hash_of(folder)
        except CascadeError as error:
            raise SettingsError(f"cascade: {error}") from error
        if found != fitted:
            raise SettingsError(f"cascade: the policy was fitted for another {fact} of the tier {tier} than that in {folder}: fit it again")


def say_unknown(policy: Policy, tier: str) -> None:
    """Of a tier whose model is not on this machine."""
    if facts := [fact for fact in _OF_FOLDERS if f"{tier}.{fact}" in policy.valid_for]:
        logger.warning("whether the policy is still about this tier cannot be seen from here", extra={"tier": tier, "facts": facts})
