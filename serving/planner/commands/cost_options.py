"""The options of `tokenport plan cost`, and which of them go together. One that would have no effect is refused by name."""

from collections.abc import Mapping
from typing import Any

from serving.errors import PlanError
from serving.planner.commands.one_line_parser import OneLineParser
from serving.planner.cost.capacity import CAPACITY_FORM, SLO_FORM, SPEED_FORM
from serving.planner.cost.options import COMMITMENTS
from serving.planner.cost.profiles import PROFILES

Given = Mapping[str, Any]
"""Options that were given, by their names with _ for -."""

_GROUPS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "the load": (
        (
            "--load FILE.csv",
            "a row an hour: hour or timestamp, requests, and input_tokens and output_tokens (sums of the hour) or "
            "input_tokens_per_request and output_tokens_per_request",
        ),
        ("--profile NAME", "a week by name instead: " + "; ".join(f"{name}: {told}" for name, told in PROFILES.items())),
        ("--requests-per-day N", "of the profile, on average over its week"),
        ("--input-tokens N", "of one request of the profile, on average"),
        ("--output-tokens N", "of one request of the profile, on average"),
        ("--length-variation X", "standard deviation of a request's tokens by their mean (default: 1)"),
        ("--seed N", "equal seeds draw equal requests (default: 0)"),
        ("--slo LIMITS", f"wait, ttft and e2e, any of them, from a request's arrival: {SLO_FORM} (default: wait=1s)"),
        ("--slo-share X", "of the requests must keep them (default: 0.99)"),
    ),
    "an API, on demand and provisioned": (
        ("--api-model NAME", "whose prices count"),
        ("--prices FILE", "prices of your own, in the form of serving/planner/cost/prices.json; they take the place of those there"),
        ("--api-speed SPEED", f"as you measured it: {SPEED_FORM}; without it nothing is said of the API's latency but the wait"),
        ("--requests-per-minute N", "the account's quota (default: no limit)"),
        ("--tokens-per-minute N", "the account's quota, input and output together (default: no limit)"),
        ("--attempts N", "of a client whose request is throttled, the first among them (default: 3, botocore's standard mode)"),
        ("--mu-input-tpm N", "input tokens a minute that one model unit carries"),
        ("--mu-output-tpm N", "output tokens a minute that one model unit carries"),
        ("--mu-price-per-hour USD", "of one model unit (default: what the prices have)"),
        ("--mu-commitment TERM", f"of that price: {', '.join(COMMITMENTS)} (default: none)"),
    ),
    "instances of one's own": (
        ("--instance NAME", "SageMaker's name"),
        ("--hardware FILE", "instances of your own, as for `tokenport plan`"),
        ("--instance-prices FILE", "prices of instances, as `tokenport plan prices` writes them"),
        ("--price-per-hour USD", "of the instance (default: what the table has)"),
        ("--capacity CAPACITY", f"of one instance: {CAPACITY_FORM}"),
        ("--bench FILE.json", "a result of `tokenport bench throughput` on such an instance, instead of --capacity"),
        ("--model MODEL", "a folder or a hub id whose speed there is estimated, instead of --capacity"),
        ("--concurrency N", "requests at once on an instance, for the estimate (default: 16)"),
        ("--quantization NAME", "for the estimate: int8 or one of vLLM's (default: what the checkpoint is)"),
        ("--calibrate FILE.json", "a result of `tokenport bench throughput` that the estimate is to go by"),
        ("--min-instances N", "that an endpoint which scales keeps; it is compared with none as well (default: 1)"),
        ("--cold-start TIME", "from the decision to add an instance to its first answer, such as 6m; without it nothing scales"),
        ("--startup FILE.json", "a result of `tokenport bench startup`, instead of --cold-start"),
        ("--target-concurrency X", "requests at once on an instance that the scaling aims at (default: 0.7 of its concurrency)"),
        ("--scale-out-after TIME", "above the target (default: 30s)"),
        ("--scale-in-after TIME", "below the target (default: 15m)"),
        ("--wake-after TIME", "from the first request that finds no instance (default: 1m)"),
        ("--max-units N", "instances, or model units, at most (default: 16)"),
    ),
    "a function in front of the API": (
        ("--lambda-cold-start TIME", "as you measured it; without it Lambda is not compared"),
        ("--lambda-memory-mb N", "of the function (default: 512)"),
        ("--lambda-keep-warm TIME", "an idle environment stays; AWS does not say how long (default: 0s, so every request starts cold)"),
        ("--lambda-architecture NAME", "x86_64 or arm64 (default: x86_64)"),
    ),
}
_OF_A_PROFILE = ("requests_per_day", "input_tokens", "output_tokens")
# An option, and those of which it needs one.
_NEEDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((name, ("profile",)) for name in _OF_A_PROFILE),
    ("slo_share", ("slo",)),
    *((name, ("api_model",)) for name in ("prices", "api_speed", "requests_per_minute", "tokens_per_minute", "attempts", "mu_input_tpm")),
    ("mu_input_tpm", ("mu_output_tpm",)),
    ("mu_output_tpm", ("mu_input_tpm",)),
    ("mu_price_per_hour", ("mu_input_tpm",)),
    ("mu_commitment", ("mu_price_per_hour",)),
    *((name, ("instance",)) for name in ("hardware", "instance_prices", "price_per_hour", "capacity", "bench", "cold_start", "startup")),
    ("instance", ("capacity", "bench", "model")),
    ("model", ("instance",)),
    ("concurrency", ("model",)),
    ("quantization", ("model",)),
    ("calibrate", ("model",)),
    *(
        (name, ("cold_start", "startup"))
        for name in ("min_instances", "target_concurrency", "scale_out_after", "scale_in_after", "wake_after")
    ),
    ("max_units", ("instance", "mu_input_tpm", "prices")),
    ("lambda_cold_start", ("api_speed",)),
    *((name, ("lambda_cold_start",)) for name in ("lambda_memory_mb", "lambda_keep_warm", "lambda_architecture")),
)
_EITHER_OR = (("load", "profile"), ("capacity", "bench"), ("capacity", "model"), ("bench", "model"), ("cold_start", "startup"))


def add_options(parser: OneLineParser) -> None:
    """Values stay text until the case is read, whose errors say what would be right."""
    for title, options in _GROUPS.items():
        group = parser.add_argument_group(title)
        for written, told in options:
            option, metavar = written.split()
            group.add_argument(option, metavar=metavar, help=told)


def check_together(given: Given) -> None:
    """Raises PlanError for an option that contradicts another, or would have no effect without one."""
    for first, second in _EITHER_OR:
        if first in given and second in given:
            raise PlanError(f"{_option(first)} and {_option(second)} say the same thing twice: give one of them")
    for name, needed in _NEEDS:
        if name in given and not any(one in given for one in needed):
            raise PlanError(f"{_option(name)} {given[name]}: needs {' or '.join(map(_option, needed))}")
    missing = [_option(name) for name in _OF_A_PROFILE if name not in given]
    if "profile" in given and missing:
        raise PlanError(f"--profile {given['profile']}: needs {' and '.join(missing)}; its name says only how a week looks")
    if "load" not in given and "profile" not in given:
        raise PlanError(f"no load: give --load FILE.csv, or --profile with one of {', '.join(PROFILES)}")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
