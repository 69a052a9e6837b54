"""A ranking in words: the rows of its tables, for the terminal and for the page, and the whole text for the terminal."""

from collections.abc import Iterable, Iterator, Sequence

from serving.planner.interval import Interval
from serving.planner.model import Model
from serving.planner.plan import PlanRequest
from serving.planner.ranking.as_json import ESTIMATE
from serving.planner.ranking.deployment import deploy_command, settings_of, values_of
from serving.planner.ranking.ranking import Candidate, Ranking, Target

WINNERS_HEAD = ("instance", "precision", "TP x replicas", "USD/h", "USD/M output", "TTFT", "TPOT", "output tokens/s")
LOSERS_HEAD = ("instance", "precision", "TP x replicas", "why not")
NUM_SHOWN = 12
"""Winners that the terminal and the page show; --json has all."""


def ranking_text(ranking: Ranking, model: Model, request: PlanRequest, assumed: Sequence[str]) -> str:
    """For the terminal."""
    lines = [f"{model.name}: {target_words(ranking.target)}", ""]
    if ranking.winners:
        lines += _table(WINNERS_HEAD, map(winner_row, ranking.winners[:NUM_SHOWN]))
        hidden = len(ranking.winners) - NUM_SHOWN
        lines += [f"... and {hidden} more that keep the target; --json has them all"] if hidden > 0 else []
    else:
        lines += ["nothing keeps the target"]
    lines += ["", *_table(LOSERS_HEAD, loser_rows(ranking.losers))] if ranking.losers else []
    lines += ["", *_how_to_run(ranking.winners[0], model, request)] if ranking.winners else []
    lines += ["", ESTIMATE, *notes(ranking)]
    lines += ["", "assumed:", *(f"  {line}" for line in assumed)] if assumed else []
    return "\n".join(lines) + "\n"


def target_words(target: Target) -> str:
    """What was asked for, in one line."""
    flow = target.flow
    words = [f"{flow.concurrency} requests at once of {flow.input_tokens} input and {flow.output_tokens} output tokens"]
    words += [f"TTFT up to {_seconds(target.ttft_s)}"] if target.ttft_s is not None else []
    words += [f"TPOT up to {_seconds(target.tpot_s)}"] if target.tpot_s is not None else []
    words += [f"up to {target.usd_per_hour:g} USD an hour"] if target.usd_per_hour is not None else []
    return ", ".join(words)


def winner_row(candidate: Candidate) -> tuple[str, ...]:
    """By `WINNERS_HEAD`; each estimate with its ends."""
    speed, price = candidate.speed, candidate.instance.price_per_hour
    return (
        *_way(candidate),
        "" if price is None else f"{price:g}",
        _range(candidate.usd_per_million_output_tokens, "{:.2f}"),
        _range(None if speed is None else speed.ttft_s, "{:.3g} s"),
        _range(None if speed is None else speed.tpot_s.times(1000), "{:.3g} ms"),
        _range(candidate.output_tokens_per_s, "{:.0f}"),
    )


def loser_rows(losers: Iterable[Candidate]) -> list[tuple[str, ...]]:
    """By `LOSERS_HEAD`; the sizes of a family that all fail in the same way together."""
    sizes: dict[tuple[str, ...], list[str]] = {}
    for one in losers:
        name, *way = _way(one)
        family, _, size = name.rpartition(".")
        sizes.setdefault((family, *way, "; ".join(one.reasons)), []).append(size)
    return [(f"{family}.{'|'.join(names)}" if family else "|".join(names), *rest) for (family, *rest), names in sizes.items()]


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
    """What the speeds stand on, how old the prices are, and what 8 bits change."""
    lines = [f"Speeds stand on {basis}." for basis in dict.fromkeys(one.basis for one in (*ranking.winners, *ranking.losers) if one.basis)]
    dates = sorted({one.instance.price_as_of for one in ranking.winners if one.instance.price_as_of})
    if dates:
        told = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        lines.append(f"Prices as of {told}; --json names the source of each, `tokenport plan prices --region R` reads today's.")
    if any(one.quantization is not None for one in ranking.winners):
        lines.append("8 bits change what a model answers: `tokenport bench quality` measures by how much.")
    return lines


def _way(candidate: Candidate) -> tuple[str, str, str]:
    return candidate.instance.name, candidate.quantization or "as it is", f"{candidate.num_ranks} x {candidate.num_replicas}"


def _range(interval: Interval | None, form: str) -> str:
    if interval is None:
        return ""
    number = form.partition("}")[0] + "}"
    return f"{form.format(interval.estimate)} ({number.format(interval.low)} to {number.format(interval.high)})"


def _seconds(value: float) -> str:
    return f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
