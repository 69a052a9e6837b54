"""A ranking in words: the rows of its tables, for the terminal and for the page, and the whole text for the terminal."""

from collections.abc import Iterable, Iterator, Sequence

from serving.planner.model import Model
from serving.planner.plan import PlanRequest
from serving.planner.ranking.as_json import ESTIMATE
from serving.planner.ranking.by_concurrency import operation_table
from serving.planner.ranking.cells import ends, seconds, table
from serving.planner.ranking.deployment import deploy_command, settings_of, values_of
from serving.planner.ranking.operation import Target
from serving.planner.ranking.ranking import Candidate, Ranking

WINNERS_HEAD = ("instance", "precision", "TP x replicas", "USD/h", "USD/M output", "TTFT", "TPOT", "output tokens/s")
LOSERS_HEAD = ("instance", "precision", "TP x replicas", "why not")
NUM_SHOWN = 12
"""Winners that the terminal and the page show; --json has all."""


def ranking_text(ranking: Ranking, model: Model, request: PlanRequest, assumed: Sequence[str]) -> str:
    """For the terminal."""
    lines = [f"{model.name}: {target_words(ranking.target)}", ""]
    if ranking.winners:
        lines += table(WINNERS_HEAD, map(winner_row, ranking.winners[:NUM_SHOWN]))
        lines += hidden_words(ranking)
    else:
        lines += ["nothing keeps the target"]
    lines += ["", *table(LOSERS_HEAD, loser_rows(ranking.losers))] if ranking.losers else []
    if operations := ranking.first_by_concurrency:
        lines += ["", f"{first_words(ranking)}:", *table(*operation_table(operations, ranking.target))]
    lines += ["", *_how_to_run(ranking.winners[0], model, request)] if ranking.winners else []
    lines += ["", ESTIMATE, *notes(ranking)]
    lines += ["", "assumed:", *(f"  {line}" for line in assumed)] if assumed else []
    return "\n".join(lines) + "\n"


def hidden_words(ranking: Ranking) -> list[str]:
    """A line for the winners that are not shown, if there are any."""
    hidden = len(ranking.winners) - NUM_SHOWN
    return [f"... and {hidden} more that keep the target; --json has them all"] if hidden > 0 else []


def target_words(target: Target) -> str:
    """What was asked for, in one line."""
    flow = target.flow
    requests = "1 request" if flow.concurrency == 1 else f"{flow.concurrency} requests"
    words = [f"{requests} at once of {flow.input_tokens} input and {flow.output_tokens} output tokens"]
    words += [f"TTFT up to {seconds(target.ttft_s)}"] if target.ttft_s is not None else []
    words += [f"TPOT up to {seconds(target.tpot_s)}"] if target.tpot_s is not None else []
    words += [f"up to {target.usd_per_hour:g} USD an hour"] if target.usd_per_hour is not None else []
    return ", ".join(words)


def first_words(ranking: Ranking) -> str:
    """The title of what the first does with other numbers of requests at once."""
    if ranking.first is None:
        return ""
    instance, precision, split = way(ranking.first)
    return f"{'The first' if ranking.winners else 'The nearest'}, {instance} ({precision}, {split}), with other numbers of requests at once"


def winner_row(candidate: Candidate) -> tuple[str, ...]:
    """By `WINNERS_HEAD`; each estimate with its ends."""
    found, price = candidate.operation, candidate.instance.price_per_hour
    figures: tuple[str, ...] = ("",) * 4
    if found is not None:
        latencies = (ends(found.speed.ttft_s, " s"), ends(found.speed.tpot_s.times(1000), " ms"))
        figures = (ends(found.usd_per_million_output_tokens), *latencies, ends(found.output_tokens_per_s))
    return *way(candidate), "" if price is None else f"{price:g}", *figures


def loser_rows(losers: Iterable[Candidate]) -> list[tuple[str, ...]]:
    """By `LOSERS_HEAD`; the sizes of a family that all fail in the same way together."""
    sizes: dict[tuple[str, ...], list[str]] = {}
    for one in losers:
        name, *others = way(one)
        family, _, size = name.rpartition(".")
        sizes.setdefault((family, *others, "; ".join(one.reasons)), []).append(size)
    return [(f"{family}.{', '.join(names)}" if family else ", ".join(names), *rest) for (family, *rest), names in sizes.items()]


def how_to_run(candidate: Candidate, model: Model, request: PlanRequest) -> list[tuple[str, list[str]]]:
    """A title and its lines: Tokenport's settings, SageMaker's values, the command."""
    settings = settings_of(candidate, request)
    values = values_of(candidate, model)
    found = [("Tokenport's settings", [f"{name}={value}" for name, value in settings.items()])]
    command = deploy_command(candidate, model, settings, values)
    if command is not None:
        told = {name: value for name, value in values.to_json().items() if name != "notes"}
        told["VolumeSizeInGB"] = told["VolumeSizeInGB"] or "leave it out: the instance has disks of its own"
        found += [("SageMaker", [*(f"{name}: {value}" for name, value in told.items()), *values.notes]), ("To deploy it", [command])]
    return found


def _how_to_run(candidate: Candidate, model: Model, request: PlanRequest) -> Iterator[str]:
    yield f"The first, {candidate.instance.name}:"
    for title, lines in how_to_run(candidate, model, request):
        yield f"  {title}:"
        yield from (f"    {line}" for line in lines)


def notes(ranking: Ranking) -> list[str]:
    """What the speeds stand on, how old the prices are, what 8 bits change, and whether the first surely fits."""
    bases = [one.service.efficiency.basis for one in (*ranking.winners, *ranking.losers) if one.service]
    lines = [f"Speeds stand on {basis}." for basis in dict.fromkeys(bases)]
    dates = sorted({one.instance.price_as_of for one in ranking.winners if one.instance.price_as_of})
    if dates:
        told = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        lines.append(f"Prices as of {told}; --json names the source of each, `tokenport plan prices --region R` reads today's.")
    if any(one.quantization is not None for one in ranking.winners):
        lines.append("8 bits change what a model answers: `tokenport bench quality` measures by how much.")
    if ranking.winners and (plan := ranking.winners[0].plan) is not None and not plan.is_sure:
        lines.append(f"The first, {ranking.winners[0].instance.name}, fits by the estimates of its memory: by their ends it may not.")
    return lines


def way(candidate: Candidate) -> tuple[str, str, str]:
    """The instance, the precision, and how its GPUs are shared."""
    return candidate.instance.name, candidate.quantization or "as it is", f"{candidate.num_ranks} x {candidate.num_replicas}"
