"""The verdict: what was measured, what came out, what share of the machine's limit that is, what failed, and what speaks against it."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.limits import share_in_words
from benchmarks.report.words import is_number, load_name, number, percent, plural, seconds

_LITTLE_CPU_LEFT = 0.8


def in_words(document: Mapping[str, Any]) -> str:
    """A few sentences for people, the most important first."""
    if document["kind"] != "throughput":
        return _general(document)
    sentences = [_invalid(document), _headline(document), _latency(document["metrics"]), _limit(document)]
    sentences += [_goodput(document["metrics"]), failures(document["metrics"]), *doubts(document)]
    return " ".join(sentence for sentence in sentences if sentence)


def failures(metrics: Mapping[str, Any]) -> str:
    """How many requests failed, and how."""
    failed, total = metrics.get("num_failed") or 0, metrics.get("num_requests") or 0
    if not failed:
        return f"None of {plural(total, 'request')} failed." if total else "There was no request in the window."
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted((metrics.get("errors") or {}).items(), key=lambda item: -item[1]))
    return f"{failed:,} of {plural(total, 'request')} failed" + (f" ({kinds})." if kinds else ".")


def doubts(document: Mapping[str, Any]) -> list[str]:
    """What limits how far the figures can be believed, though they are valid."""
    first, runs = document["metrics"]["ttft_s"], chosen_runs(document)
    found = []
    if first["p99"] is None and first["num_samples"]:
        found.append(f"{plural(first['num_samples'], 'sample')} are too few for a p99; send more requests.")
    if any((run.get("window") or {}).get("how", "").startswith("the whole run") for run in runs):
        found.append("The run was too short for a steady part: ramp and drain are in the figures.")
    busiest = max((load.get("cpu_share") or 0 for run in runs for load in run.get("client") or []), default=0)
    if busiest >= _LITTLE_CPU_LEFT:
        found.append(f"A client process was busy {percent(busiest)} of the time: near what it can drive.")
    found += [_sentence(warning) for warning in document.get("warnings") or []]
    if len(runs) == 1:
        found.append("One run: its intervals tell the spread within it, not that between runs.")
    return found


def chosen_runs(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The runs whose figures stand on top: one, or the repeats of one load; those of the first load where the document does not say."""
    if document.get("chosen"):
        return [run for run in document["runs"] if run["index"] in document["chosen"]]
    return next(iter(runs_by_load(document).values()), [])


def run_name(document: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """What tells a run's load from those of the others."""
    load = run.get("load") or {}
    # One stream at a time: what differs is the length of the prompt.
    is_by_length = document["kind"] == "latency" and load.get("input_length") is not None
    return f"{load['input_length']} tokens of prompt" if is_by_length else load_name(load)


def runs_by_load(document: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Name of each load -> its repeats, in the order in which they were measured."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in document["runs"]:
        found.setdefault(run_name(document, run), []).append(run)
    return found


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}" + ("" if words.endswith(".") else ".")


def _invalid(document: Mapping[str, Any]) -> str:
    return "" if document["valid"] else f"INVALID, do not quote: {'; '.join(document['invalid_reasons'])}."


def _headline(document: Mapping[str, Any]) -> str:
    metrics, target = document["metrics"], document["target"]
    what = target.get("model") or target.get("endpoint_name") or target.get("url") or "The server"
    if not is_number(metrics["output_tokens_per_s"]):
        return f"{what}: no throughput could be measured."
    runs = chosen_runs(document)
    repeats = f" ({len(runs)} repeats)" if len(runs) > 1 else ""
    where = f"{what} at {load_name(runs[0].get('load') if runs else None)}{repeats}"
    bounds = _half_width(metrics)
    return (
        f"{where}: {number(metrics['output_tokens_per_s'])}{bounds} output tokens/s and "
        f"{number(metrics['requests_per_s'])} requests/s{_lengths(metrics)}."
    )


def _half_width(metrics: Mapping[str, Any]) -> str:
    bounds = (metrics.get("ci") or {}).get("output_tokens_per_s")
    return f" (95 %: {number(bounds[0])} to {number(bounds[1])})" if bounds and all(map(is_number, bounds)) else ""


def _lengths(metrics: Mapping[str, Any]) -> str:
    tokens, total = metrics.get("tokens") or {}, metrics.get("num_requests") or 0
    if not total or not tokens.get("output"):
        return ""
    prompt = f"{number(round(tokens['prompt'] / total))} tokens in and " if tokens.get("prompt") else ""
    return f", {prompt}{number(round(tokens['output'] / total))} out a request"


def _latency(metrics: Mapping[str, Any]) -> str:
    first, each = metrics["ttft_s"], metrics["tpot_s"]
    if not is_number(first["mean"]):
        whole = metrics["e2e_s"]
        return f"A whole answer took {_typical(whole)}." if is_number(whole["mean"]) else ""
    rest = f", each one after it {_typical(each)}" if is_number(each["mean"]) else ""
    return f"The first token took {_typical(first)}{rest}."


def _typical(figures: Mapping[str, Any]) -> str:
    worst = next((name for name in ("p99", "p90") if is_number(figures[name])), None)
    middle = figures["p50"] if is_number(figures["p50"]) else figures["mean"]
    return seconds(middle) + (f" ({worst} {seconds(figures[worst])})" if worst else "")


def _limit(document: Mapping[str, Any]) -> str:
    reached = share_in_words(document)
    return f"Of what this machine can do, that is {reached}." if reached else ""


def _goodput(metrics: Mapping[str, Any]) -> str:
    goodput = metrics.get("goodput")
    if not goodput or not is_number(goodput["share"]):
        return ""
    return f"{percent(goodput['share'])} of the requests kept the limits ({slo_in_words(goodput['slo'])})."


def slo_in_words(slo: Any) -> str:
    """`TTFT 500 ms, TPOT 30 ms`."""
    if not isinstance(slo, Mapping):
        return str(slo)
    return ", ".join(f"{name.removesuffix('_s').upper()} {seconds(slo[name])}" for name in ("ttft_s", "tpot_s", "e2e_s") if slo.get(name))


def _general(document: Mapping[str, Any]) -> str:
    what = document["target"].get("model") or document["target"].get("url") or "the server"
    return " ".join(filter(None, [_invalid(document), f"The {document['kind']} of {what}, measured."]))
