"""A ranking as one HTML page: the tables, where the memory goes, latency against cost, and how the first is run.

It needs no network and no script. It is built as a tree, so that no text of the user's can become markup.
"""

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from serving.planner.model import Model
from serving.planner.plan import PlanRequest
from serving.planner.ranking.as_json import ESTIMATE
from serving.planner.ranking.as_text import (
    LOSERS_HEAD,
    NUM_SHOWN,
    WINNERS_HEAD,
    first_words,
    hidden_words,
    how_to_run,
    loser_rows,
    notes,
    target_words,
    way,
    winner_row,
)
from serving.planner.ranking.by_concurrency import operation_table
from serving.planner.ranking.charts import frontier, memory_bar
from serving.planner.ranking.ranking import Candidate, Ranking

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --panel: #f5f6f8; --text: #1b1f24; --quiet: #57606a; --line: #d0d7de;
  --part-0: #0072b2; --part-1: #00795c; --part-2: #c2410c; --part-3: #8a6d00; --part-4: #8e3b8a; --free: #e3e7eb; }
@media (prefers-color-scheme: dark) { :root { --ground: #0f1216; --panel: #181c22; --text: #e6e9ed; --quiet: #a3acb7; --line: #353c45;
  --part-0: #58b4f0; --part-1: #3ecfa5; --part-2: #ff9a5c; --part-3: #e3c341; --part-4: #dd8fd8; --free: #262c34; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 20px; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 32px 0 8px; }
p { margin: 6px 0; max-width: 85ch; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); font-size: .875rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: top; }
td:last-child { white-space: normal; min-width: 10rem; }
th[scope=row] { white-space: normal; }
pre { background: var(--panel); padding: 10px; border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
figure { margin: 12px 0; }
figcaption { font-size: .875rem; }
svg { display: block; width: 100%; max-width: 640px; height: auto; }
svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
@media (max-width: 600px) { main { padding: 12px; } svg text { font-size: 15px; } }
"""


def ranking_page(ranking: Ranking, model: Model, request: PlanRequest, assumed: Sequence[str]) -> str:
    """The page."""
    html = Element("html", lang="en")
    _head(html, model.name)
    main = SubElement(SubElement(html, "body"), "main")
    _text(main, "h1", f"{model.name}: where to serve it")
    _text(main, "p", target_words(ranking.target))
    for line in (ESTIMATE, *notes(ranking)):
        _text(main, "p", line, "quiet")
    shown = ranking.winners[:NUM_SHOWN]
    if shown:
        _text(main, "h2", "What keeps the target, the cheapest first")
        _table(main, WINNERS_HEAD, map(winner_row, shown))
        for line in hidden_words(ranking):
            _text(main, "p", line, "quiet")
        _text(main, "h2", f"To run the first, {shown[0].instance.name}")
        for title, lines in how_to_run(shown[0], model, request):
            _text(main, "p", title)
            _text(main, "pre", "\n".join(lines))
    else:
        _text(main, "h2", "Nothing keeps the target")
    _charts(main, ranking, shown)
    if ranking.losers:
        _text(main, "h2", "What does not keep it, and why")
        _table(main, LOSERS_HEAD, loser_rows(ranking.losers))
    if assumed:
        _text(main, "h2", "Assumed")
        for line in assumed:
            _text(main, "p", line)
    return "<!doctype html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _head(html: Element, name: str) -> None:
    head = SubElement(html, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "title").text = f"{name}: where to serve it"
    SubElement(head, "style").text = _STYLE


def _charts(main: Element, ranking: Ranking, shown: Sequence[Candidate]) -> None:
    timed = [one for one in (*ranking.winners, *ranking.losers) if one.operation and one.operation.usd_per_million_output_tokens]
    if timed:
        _text(main, "h2", "Latency against cost")
        figure = SubElement(main, "figure")
        figure.append(frontier(timed))
        _text(
            figure,
            "figcaption",
            "Down and left is better. Filled: keeps the target. The line: nothing is both faster and cheaper.",
            "quiet",
        )
    if operations := ranking.first_by_concurrency:
        _text(main, "h2", first_words(ranking))
        _table(main, *operation_table(operations, ranking.target))
    best: dict[str, Candidate] = {}
    for one in shown:
        best.setdefault(one.instance.name, one)
    if best:
        _text(main, "h2", "Memory of the fullest GPU, of each instance's best")
    for candidate in best.values():
        if candidate.plan is not None:
            figure = SubElement(main, "figure")
            _text(figure, "figcaption", ", ".join(way(candidate)))
            figure.append(memory_bar(candidate.plan.per_gpu))


def _text(parent: Element, name: str, text: str, style: str | None = None) -> None:
    SubElement(parent, name, {} if style is None else {"class": style}).text = text


def _table(parent: Element, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    scroll = SubElement(parent, "div", {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "table"})
    table = SubElement(scroll, "table")
    titles = SubElement(SubElement(table, "thead"), "tr")
    for title in head:
        SubElement(titles, "th", scope="col").text = title
    body = SubElement(table, "tbody")
    for row in rows:
        line = SubElement(body, "tr")
        SubElement(line, "th", scope="row").text = row[0]
        for cell in row[1:]:
            SubElement(line, "td").text = cell
