"""In what two results differ that makes their figures incomparable, and in what else."""

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.report.verdict import runs_by_load
from benchmarks.report.words import number, percent

_LOAD_SETTINGS = (
    "input_len", "output_len", "prompts", "shared_prefix", "num_prefixes", "turns", "think", "later_input_len", "arrivals", "burstiness",
    "stages", "trace", "trace_speed", "trace_limit", "natural_length", "chat", "extra_body",
)  # fmt: skip
"""Options that say what the load is: where these differ, not the servers alone were compared."""
_OF_THIS_RUN = ("out", "html", "json", "api_key", "pair", "url", "positional_url", "concurrency", "rate", "sweep")
_CHANGING = ("free", "available", "busy", "load", "temperature", "clock", "power", "used", "uptime", "mhz", "created", "time", "process")
_ALLOWED_LENGTH_RATIO = 1.02


def warnings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What a reader has to know before any figure, the gravest first."""
    found = []
    versions = a["schema_version"], b["schema_version"]
    if versions[0] != versions[1]:
        found.append(f"the files have different schemas: {versions[0]} and {versions[1]}")
    models = a["target"].get("model"), b["target"].get("model")
    if models[0] != models[1]:
        found.append(f"the models differ: {models[0]} and {models[1]}")
    if list(runs_by_load(a)) != list(runs_by_load(b)):
        found.append(f"the loads differ: {', '.join(runs_by_load(a))} against {', '.join(runs_by_load(b))}")
    found += [f"the loads differ in {words}" for words in _differing_options(a, b, wanted=True)]
    found += _lengths(a["metrics"], b["metrics"])
    machines = _differing(_steady(a["machine"]), _steady(b["machine"]))
    if machines:
        found.append(f"the machines differ: {'; '.join(machines[:4])}" + (" and more" if len(machines) > 4 else ""))
    return found


def differing_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Other settings, the target and versions in which they differ, as `name: x / y`."""
    target = [words for words in _differing(_flat(a["target"]), _flat(b["target"])) if not words.startswith("model:")]
    return [*target, *_differing_options(a, b, wanted=False), *_differing(_flat(a["versions"]), _flat(b["versions"]))]


def _lengths(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What was really read and generated: settings of the same value do not make it so."""
    found = []
    for kind, words in (("prompt", "prompts"), ("output", "answers")):
        means = [_mean_tokens(metrics, kind) for metrics in (a, b)]
        if None not in means and not _is_near(*means):
            found.append(f"the {words} differ in length: {number(means[0])} and {number(means[1])} tokens in the mean")
    shares = [_cached_share(metrics) for metrics in (a, b)]
    if None not in shares and abs(shares[0] - shares[1]) > 0.05:
        found.append(f"the prefix cache had different shares of the prompts: {percent(shares[0])} and {percent(shares[1])}")
    ways = [(metrics.get("tokens") or {}).get("counted_by") for metrics in (a, b)]
    if ways[0] != ways[1] and None not in ways:
        found.append(f"tokens were counted differently: by {ways[0]} and by {ways[1]}")
    return found


def _mean_tokens(metrics: Mapping[str, Any], kind: str) -> Any:
    tokens, num = metrics.get("tokens") or {}, metrics.get("num_requests")
    return tokens[kind] / num if num and tokens.get(kind) else None


def _cached_share(metrics: Mapping[str, Any]) -> Any:
    tokens = metrics.get("tokens") or {}
    return (tokens.get("cached") or 0) / tokens["prompt"] if tokens.get("prompt") else None


def _is_near(one: float, other: float) -> bool:
    return max(one, other) <= min(one, other) * _ALLOWED_LENGTH_RATIO


def _differing_options(a: Mapping[str, Any], b: Mapping[str, Any], *, wanted: bool) -> list[str]:
    sides = []
    for document in (a, b):
        options = {name.lstrip("-").replace("-", "_"): value for name, value in document["settings"].items()}
        # The model's name is compared as the target has it.
        sides.append({name: value for name, value in options.items() if name != "model" and name not in _OF_THIS_RUN})
    chosen = [{name: value for name, value in side.items() if (name in _LOAD_SETTINGS) == wanted} for side in sides]
    return _differing(*chosen)


def _steady(machine: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in _flat(machine).items() if not any(word in name.lower() for word in _CHANGING)}


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys([*a, *b])
    return [f"{name}: {_short(a.get(name))} / {_short(b.get(name))}" for name in names if not _is_same(a.get(name), b.get(name))]


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3)
    return bool(one == other)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
