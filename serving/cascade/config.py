"""cascade.yaml: the tiers from the smallest to the largest, and what holds for a request's way through them.

Strict: an unknown field, a wrong value or a contradiction stops the start, in one line that names file and field. Secrets are not in the
file: `api_key_env` names the environment variable that has one.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.cascade.request_features import PLAIN_NAMES
from serving.errors import InvalidRequest, SettingsError
from serving.settings_sources import parse_document
from serving.strict import invalid_request, refuse_unknown_fields

AUTO = "auto"
"""The model name that asks the cascade to choose."""
_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "max_tokens",
    "min_tokens",
)
"""Those of vLLM's SamplingParams that are numbers and that requests for chats and for completions both have."""
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)] | int
_Count = Annotated[int, Field(ge=1)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Price(_Strict):
    """USD: for a million tokens of prompts (`input`) and of answers (`output`), or for an hour of a machine that is paid for anyway."""

    input: _Amount = 0.0
    output: _Amount = 0.0
    per_hour: _Amount = 0.0


class BreakerConfig(_Strict):
    """After so many `failures` in a row a tier is passed over for `cooldown_s`; then one request tries it."""

    failures: _Count = 5
    cooldown_s: _Positive = 30.0


class BudgetConfig(_Strict):
    """What may be spent in each window of `window_s`, by each API key or by all together, and what happens beyond: the first tier alone
    answers, or the request is refused."""

    usd: _Positive
    window_s: _Positive
    per: Literal["key", "all"] = "all"
    then: Literal["small", "refuse"]


class Bounds(_Strict):
    """From `min` to `max`, both included; without one of them there is no end on that side."""

    min: _Amount | None = None
    max: _Amount | None = None

    def has(self, value: float) -> bool:
        """Whether `value` is within."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def __str__(self) -> str:
        ends = (f"{word} {end:.15g}" for word, end in (("at least", self.min), ("at most", self.max)) if end is not None)
        return " and ".join(ends)


class _Tier(_Strict):
    """`takes`: bounds on `request_features.plain` of a request, all of which must hold. `sampling`: fields that requests to it have if they
    say nothing else."""

    name: _Name
    price: Price
    takes: dict[str, Bounds] = {}
    sampling: dict[str, _Number] = {}


class LocalTier(_Tier):
    """The model that this server has loaded itself."""

    engine: Literal["local"]


class VllmTier(_Tier):
    """A second `tokenport serve` on this machine. `arguments`: its settings by name."""

    engine: Literal["vllm"]
    model: _Text
    arguments: dict[str, Any] = {}
    start_deadline_s: _Positive = 1800.0


class OpenAITier(_Tier):
    """A server that speaks OpenAI's protocol at `url` (up to and with `/v1`). `ca`: a file of certificates to trust instead of the
    system's."""

    engine: Literal["openai"]
    url: _Text
    model: _Text
    api_key_env: _Text | None = None
    ca: _Text | None = None


class SageMakerTier(_Tier):
    """A SageMaker endpoint. `component`: its inference component. `model`: what the container there is told."""

    engine: Literal["sagemaker"]
    endpoint: _Text
    component: _Text | None = None
    model: _Text | None = None
    region: _Text | None = None


class BedrockTier(_Tier):
    """`model`: a model's id or ARN, an inference profile, or the ARN of provisioned throughput."""

    engine: Literal["bedrock"]
    model: _Text
    region: _Text | None = None


TierConfig = LocalTier | VllmTier | OpenAITier | SageMakerTier | BedrockTier


class CascadeConfig(_Strict):
    """The file.

    `policy` is a path, relative to the file. `first_byte_s`: how long a tier's stream may take to begin. `hold_ms`: how long a streamed
    draft is held at most, its beginning included. `deadline_s`: for a request's whole way through the tiers, its answer included.
    `attempts`: how often a tier is asked at most for one request. `cost_limit_usd`: a request that has cost so much asks no further model.
    `sticky_s`: how long a conversation stays with the tier that it was handed to; 0 for not at all.
    """

    policy: _Text | None = None
    first_byte_s: _Positive = 30.0
    hold_ms: _Positive = 5000.0
    deadline_s: _Positive = 300.0
    attempts: _Count = 2
    cost_limit_usd: _Positive | None = None
    breaker: BreakerConfig = BreakerConfig()
    sticky_s: _Amount = 0.0
    budget: BudgetConfig | None = None
    tiers: Annotated[list[Annotated[TierConfig, Field(discriminator="engine")]], Field(min_length=1)]


def read_cascade(path: Path) -> CascadeConfig:
    """The cascade that `path` describes.

    Raises:
        SettingsError: it cannot be read, or is wrong; names the file and the field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cascade: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"cascade: {path} is not UTF-8: {error.reason} at byte {error.start}") from error
    document = parse_document(text, f"cascade: {path}")
    if not isinstance(document, dict):
        raise SettingsError(f"cascade: {path} must be a mapping with `tiers`")
    try:
        config = _validated(document)
    except InvalidRequest as error:
        raise SettingsError(f"cascade: {path}: {error.message}") from error
    return config.model_copy(update={"policy": str(path.parent / config.policy)}) if config.policy else config


def refuse_taken_names(names: Iterable[str], served: Sequence[str]) -> None:
    """`names` of the cascade, `served` those of the model that the server loads.

    Raises:
        SettingsError: one is both.
    """
    for name in names:
        if name in served:
            raise SettingsError(f"cascade: {name!r} is the name of a tier and of the model that is served: rename the tier")


def _validated(document: dict[str, Any]) -> CascadeConfig:
    refuse_unknown_fields(CascadeConfig, document)
    try:
        config = CascadeConfig.model_validate(document)
    except ValidationError as error:
        raise invalid_request(error, document) from error
    _refuse_contradictions(config)
    return config


def _refuse_contradictions(config: CascadeConfig) -> None:
    num_local = sum(isinstance(tier, LocalTier) for tier in config.tiers)
    if num_local != 1:
        raise InvalidRequest(f"tiers: exactly one must have `engine: local`, the model of this server, and {num_local} have")
    names = [tier.name for tier in config.tiers]
    for index, tier in enumerate(config.tiers):
        where = f"tiers[{index}]"
        if tier.name == AUTO or tier.name in names[:index]:
            raise InvalidRequest(f"{where}.name: {tier.name!r} is taken: choose another")
        if tier.price.per_hour and (tier.price.input or tier.price.output):
            raise InvalidRequest(f"{where}.price: `per_hour` and a price of tokens: keep one")
        _refuse_other_names(tier.takes, PLAIN_NAMES, f"{where}.takes")
        _refuse_other_names(tier.sampling, _SAMPLING, f"{where}.sampling")
        _check_bounds(tier.takes, f"{where}.takes")
        if isinstance(tier, OpenAITier):
            _check_url(tier.url, f"{where}.url")


def _refuse_other_names(names: Iterable[str], known: Sequence[str], field: str) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InvalidRequest(f"unknown field {name!r} in {field}; " + (f"did you mean {near[0]!r}?" if near else ", ".join(known)))


def _check_bounds(takes: Mapping[str, Bounds], field: str) -> None:
    for name, bounds in takes.items():
        if bounds.min is None and bounds.max is None:
            raise InvalidRequest(f"{field}.{name}: has neither `min` nor `max`")
        if bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
            raise InvalidRequest(f"{field}.{name}: min {bounds.min:.15g} is above max {bounds.max:.15g}: no request has that")


def _check_url(url: str, field: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(f"{field}: expected http:// or https:// and a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidRequest(f"{field}: a URL without user, query and fragment: a key goes into the variable that `api_key_env` names")
