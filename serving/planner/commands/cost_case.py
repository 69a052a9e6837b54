"""From the options of `tokenport plan cost` to the case that is compared. What nobody told is written down as assumed, and what cannot be
compared with its reason."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from serving.errors import PlanError
from serving.planner.commands.cost_options import Given, check_together
from serving.planner.commands.cost_own import read_own
from serving.planner.cost.capacity import CAPACITY_FORM, parse_slo, parse_speed
from serving.planner.cost.case import Api, Case
from serving.planner.cost.functions import Function
from serving.planner.cost.load import Load, read_load
from serving.planner.cost.options import COMMITMENTS, OnDemand
from serving.planner.cost.outcome import Slo
from serving.planner.cost.prices import Architecture, Commitment, Prices, ProvisionedPrice, read_prices
from serving.planner.cost.profiles import profile
from serving.planner.cost.quantities import count, duration_s, number, unknown, wrong
from serving.planner.cost.quota import Quota
from serving.planner.cost.report import Notes

_DEFAULT_WAIT_S = 1.0
# 20 s between two of them, botocore's longest: more than half an hour of trying.
_MOST_ATTEMPTS = 100
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_MOST_LAMBDA_MEMORY_MB = 10_240
_LEAST_VARIATION, _MOST_VARIATION = 0.001, 5.0


def read_case(given: Given) -> tuple[Case, Notes]:
    """What the options describe.

    Raises:
        PlanError: an option is malformed, is missing, or would have no effect; names it.
    """
    check_together(given)
    notes = Notes()
    notes.assumed.append("a month of 730 hours is like this load, and requests come at random within each hour")
    variation = _variation(given, notes)
    most_units = count("--max-units", given.get("max_units", "16"))
    seed = count("--seed", given.get("seed", "0"), least=0)
    if "seed" not in given:
        notes.assumed.append("requests are drawn with --seed 0: another draws others")
    load, slo = _load(given), _slo(given, notes)
    prices = read_prices(Path(given["prices"]) if "prices" in given else None)
    api = _api(given, prices, seed, notes)
    own = read_own(given, load, most_units, notes)
    if api is None and own is None:
        raise PlanError(f"nothing to compare: give --api-model NAME, or --instance NAME with --capacity {CAPACITY_FORM}")
    if "max_units" not in given and (own or (api and api.provisioned)):
        notes.assumed.append(f"no more than {most_units} instances or model units: --max-units")
    return Case(load, slo, api, own, _function(given, prices, api, notes), most_units, variation, seed), notes


def _load(given: Given) -> Load:
    if "load" in given:
        return read_load(Path(given["load"]))
    amounts = [number(f"--{name.replace('_', '-')}", given[name]) for name in ("requests_per_day", "input_tokens", "output_tokens")]
    return profile(given["profile"], *amounts)


def _variation(given: Given, notes: Notes) -> float:
    if "length_variation" not in given:
        notes.assumed.append("lengths of requests vary as much as their mean: --length-variation 1")
        return 1.0
    variation = number("--length-variation", given["length_variation"], above=False)
    # Beyond these the gamma distribution's draws leave what a float holds.
    if variation and not _LEAST_VARIATION <= variation <= _MOST_VARIATION:
        raise wrong("--length-variation", given["length_variation"], f"write 0, or from {_LEAST_VARIATION:g} to {_MOST_VARIATION:g}")
    return variation


def _slo(given: Given, notes: Notes) -> Slo:
    if "slo" not in given:
        notes.assumed.append("99 % of the requests may wait 1 s at most for the work on them to begin: --slo wait=1s")
        return Slo(wait_s=_DEFAULT_WAIT_S)
    if "slo_share" not in given:
        notes.assumed.append("99 % of the requests must keep the limits: --slo-share 0.99")
    share = number("--slo-share", given.get("slo_share", "0.99"))
    if share > 1:
        raise PlanError(f"--slo-share {share:g}: write a share above 0 and up to 1")
    return parse_slo(given["slo"], share)


def _api(given: Given, prices: Prices, seed: int, notes: Notes) -> Api | None:
    if "api_model" not in given:
        notes.not_compared.append("on-demand: no --api-model")
        return None
    model = given["api_model"]
    if model not in prices.on_demand and any(model == name for name, _ in prices.provisioned):
        raise PlanError(f"--api-model {model}: has a price for model units and none by the token: add one to on_demand in --prices")
    if model not in prices.on_demand:
        raise unknown("--api-model", model, list(prices.on_demand))
    limits = [
        number(f"--{name.replace('_', '-')}", given[name]) if name in given else None
        for name in ("requests_per_minute", "tokens_per_minute")
    ]
    if limits == [None, None]:
        notes.assumed.append("the API throttles nobody: no --tokens-per-minute, no --requests-per-minute")
    num_attempts = count("--attempts", given.get("attempts", "3"), most=_MOST_ATTEMPTS)
    provisioned = _provisioned(given, model, prices, notes)
    if "attempts" not in given and (limits != [None, None] or provisioned):
        notes.assumed.append(f"a client whose request is throttled sends it {num_attempts} times in all: --attempts")
    quota = Quota(limits[0], limits[1], num_attempts=num_attempts)
    speed = parse_speed("--api-speed", given["api_speed"]) if "api_speed" in given else None
    if speed is None:
        notes.assumed.append("nothing of the API's own latency: no --api-speed")
    else:
        notes.sources.append(f"speed of the API: {speed}: --api-speed")
    on_demand = OnDemand(prices.on_demand[model], quota, speed, seed)
    return Api(on_demand, provisioned)


def _provisioned(given: Given, model: str, prices: Prices, notes: Notes) -> tuple[ProvisionedPrice, ...]:
    """Every commitment that has a price, once it is known what a unit carries."""
    found = {commitment: price for (name, commitment), price in prices.provisioned.items() if name == model}
    if "mu_price_per_hour" in given:
        commitment: Commitment = given.get("mu_commitment", "none")
        if commitment not in COMMITMENTS:
            raise unknown("--mu-commitment", commitment, list(COMMITMENTS))
        usd = number("--mu-price-per-hour", given["mu_price_per_hour"])
        found[commitment] = ProvisionedPrice(model, commitment, usd, None, None, None, "given", "--mu-price-per-hour")
    if "mu_input_tpm" in given:
        rates = number("--mu-input-tpm", given["mu_input_tpm"]), number("--mu-output-tpm", given["mu_output_tpm"])
        found = {term: replace(price, input_tokens_per_minute=rates[0], output_tokens_per_minute=rates[1]) for term, price in found.items()}
        if not found:
            raise PlanError(f"--mu-input-tpm {rates[0]:g}: the prices have no model unit of {model}; give --mu-price-per-hour")
    known = {term: one for term, one in found.items() if one.input_tokens_per_minute and one.output_tokens_per_minute}
    for term, (_, name) in COMMITMENTS.items():
        if term not in known:
            why = "no price: give --mu-price-per-hour" if term not in found else "what a unit carries is not published: give --mu-input-tpm"
            notes.not_compared.append(f"provisioned, {name}: {why}")
    return tuple(known[term] for term in COMMITMENTS if term in known)


def _function(given: Given, prices: Prices, api: Api | None, notes: Notes) -> Function | None:
    if api is None or "lambda_cold_start" not in given:
        notes.not_compared.append("lambda + on-demand: no --lambda-cold-start")
        return None
    architecture: Architecture = given.get("lambda_architecture", "x86_64")
    if architecture not in get_args(Architecture):
        raise unknown("--lambda-architecture", architecture, get_args(Architecture))
    for name, told in (
        ("lambda_memory_mb", "512 MB"),
        ("lambda_keep_warm", "0 s, every call starts cold"),
        ("lambda_architecture", "x86_64"),
    ):
        if name not in given:
            notes.assumed.append(f"the function: --{name.replace('_', '-')} {told}")
    return Function(
        prices.lambda_[architecture],
        count("--lambda-memory-mb", given.get("lambda_memory_mb", "512"), least=128, most=_MOST_LAMBDA_MEMORY_MB) / 1024,
        duration_s("--lambda-cold-start", given["lambda_cold_start"]),
        duration_s("--lambda-keep-warm", given.get("lambda_keep_warm", "0s")),
        api.on_demand,
    )
