"""The HTML report: whole, self-contained, and deaf to what a document would have it do."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import plotly.graph_objects
import pytest

from benchmarks.report import document as result
from benchmarks.report.charts import distributions, memory, throughput_against_latency, timelines, utilisation
from benchmarks.report.html import element, in_script, table, tree
from benchmarks.report.page import report_page

GIB = 2**30
DEVICE = {
    "rank": 0,
    "device": "cuda:0",
    "total_bytes": 24 * GIB,
    "weights_bytes": 8 * GIB,
    "weights_by_dtype": {"int8": 8 * GIB},
    "kv_cache_bytes": 10 * GIB,
    "activation_peak_bytes": GIB,
    "cuda_graph_bytes": 0,
    "non_torch_bytes": GIB,
    "other_bytes": GIB,
    "free_bytes": 3 * GIB,
}
MACHINE = {"ledger": {"devices": [DEVICE], "as_of_s": 0.1}, "efficiency": {"mbu": 0.41, "mfu": 0.07, "reasons": {}}}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Outline(HTMLParser):
    """Which elements there are, with their attributes, and whether each is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


@pytest.fixture
def sweep(make_document):
    return make_document(points=((1, 1), (4, 2), (8, 1)), num_requests=120, num_failed=2, more=MACHINE)


def test_the_page_is_well_formed_and_has_every_part(sweep):
    outline = Outline(report_page(sweep))
    assert outline.open == []
    headings = re.findall(r"<h2>(.*?)</h2>", report_page(sweep))
    expected = ["Throughput against latency", "Latency", "Over time", "Memory", "The physical limit", "Figures", "How it was measured"]
    assert headings == expected
    assert sweep["verdict"] in outline.text
    for words in (
        "2 of",
        "broken 2",
        "41.0 %",
        "vllm",
        "0.32.0",
        sweep["definitions"]["tpot_s"],
        sweep["command"],
        "from the first answer's end",
    ):
        assert words in outline.text
    drawn = json.loads(outline.scripts[0])
    places = [attributes["id"] for tag, attributes in outline.elements if attributes.get("class") == "chart"]
    assert [chart["id"] for chart in drawn] == places
    assert places == [
        "curve-ttft_s",
        "curve-tpot_s",
        "cdf-ttft_s",
        "cdf-tpot_s",
        "cdf-itl_s",
        "cdf-e2e_s",
        "rate",
        "state",
        "memory",
        "utilisation",
    ]


def test_nothing_is_loaded_from_anywhere(sweep):
    outline = Outline(report_page(sweep))
    assert [element for element in outline.elements if {"src", "href", "srcset", "data", "action"} & element[1].keys()] == []
    assert {tag for tag, _ in outline.elements} & {"link", "iframe", "img", "object", "embed", "base", "form"} == set()
    style = re.search(r"<style>(.*?)</style>", report_page(sweep), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_the_policy_forbids_the_network_and_every_other_script(sweep):
    outline = Outline(report_page(sweep))
    (policy,) = [attributes["content"] for _, attributes in outline.elements if attributes.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    assert rules["img-src"] == "data: blob:"
    hashes = ["'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'" for script in outline.scripts[1:]]
    assert rules["script-src"].split() == hashes
    assert len(hashes) == 2
    assert report_page(sweep).count("* plotly.js v") == 1


@pytest.mark.parametrize("place", ["model", "url", "setting", "machine", "command", "reason", "error", "device", "version", "label"])
def test_what_a_document_says_stays_text(make_document, place):
    document = make_document(num_requests=40, num_failed=1, more={"ledger": {"devices": [dict(DEVICE)]}})
    plain = report_page(document)
    if place in ("model", "url"):
        document["target"][place] = HOSTILE
    elif place == "setting":
        document["settings"][HOSTILE] = [{HOSTILE: HOSTILE}]
    elif place in ("machine", "version"):
        document[f"{place}s" if place == "version" else place][HOSTILE] = HOSTILE
    elif place == "command":
        document["command"] = ["tokenport", HOSTILE]
    elif place == "reason":
        document["valid"], document["invalid_reasons"] = False, [HOSTILE]
    elif place == "error":
        document["metrics"]["errors"] = {HOSTILE: 1}
    elif place == "device":
        document["ledger"]["devices"][0]["device"] = HOSTILE
    else:
        document["runs"][0]["load"] = {"kind": HOSTILE}
    document["verdict"] = HOSTILE
    outline = Outline(report_page(document))
    assert outline.open == []
    assert HOSTILE in outline.text
    assert {tag for tag, _ in outline.elements} <= {tag for tag, _ in Outline(plain).elements} | {"ul", "li"}
    assert len(outline.scripts) == 3
    assert json.loads(outline.scripts[0])
    assert not any(name.startswith("on") for _, attributes in outline.elements for name in attributes)


def test_charts_escape_what_plotly_would_read_as_markup(make_document):
    document = make_document(num_requests=40, more={"ledger": {"devices": [{**DEVICE, "device": "<a href='x'>"}]}})
    document["runs"][0]["load"] = {"kind": "<b>"}
    drawn = json.dumps([chart.to_json() for chart in (*memory(document), *throughput_against_latency(document))])
    assert "<b>" not in drawn
    assert "<a" not in drawn
    assert "&lt;b&gt;" in drawn


def test_an_invalid_run_says_so_before_anything_else(make_document):
    page = report_page(make_document(num_requests=40, invalid_reasons=["the client limited the run"]))
    assert page.index('role="alert"') < page.index('class="verdict"') < page.index('class="tiles"')
    assert "<li>the client limited the run</li>" in page
    assert 'role="alert"' not in report_page(make_document(num_requests=40))


def test_a_percentile_without_samples_is_no_number(make_document):
    assert "too few samples (56)" in Outline(report_page(make_document(num_requests=60))).text


def test_the_charts_are_ones_that_plotly_knows(sweep):
    drawn = [*throughput_against_latency(sweep), *distributions(sweep), *timelines(sweep), *memory(sweep), *utilisation(sweep)]
    assert len(drawn) == 10

    def with_colours(value):
        if isinstance(value, dict):
            return {key: with_colours(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [with_colours(one) for one in value]
        return "#123456" if isinstance(value, str) and value.startswith("var(--") else value

    for chart in drawn:
        figure = with_colours(chart.to_json())
        plotly.graph_objects.Figure(data=figure["traces"], layout=figure["layout"])


def test_a_share_of_the_limit_is_told_in_its_own_unit_too(make_document):
    efficiency = {"mbu": 0.4, "mfu": 0.1, "bytes_per_s": 9.6e9, "bandwidth_limit_bytes_per_s": 24e9, "flops_per_s": None, "reasons": {}}
    (chart,) = utilisation(make_document(num_requests=30, more={"efficiency": efficiency}))
    assert chart.traces[0]["text"] == ["40.0 %, 9.6 of 24 GB/s", "10.0 %"]
    assert utilisation({"efficiency": {"mbu": None, "mfu": None, "reasons": {"mbu": "no ledger"}}}) == []


def test_every_colour_is_in_both_schemes_of_the_style(sweep):
    page = report_page(sweep)
    light, dark = (
        set(re.findall(r"(--[a-z0-9-]+):", part)) for part in re.search(r"(:root \{.*?\})\n(@media .*?\n\})", page, re.DOTALL).groups()
    )
    assert light == dark
    used = page.partition("</style>")[0] + Outline(page).scripts[0]
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", used)) <= light


def test_a_long_run_becomes_some_hundred_points(make_document):
    document = make_document(num_requests=2000, num_tokens=8)
    for chart in (*distributions(document), *timelines(document)):
        assert all(len(trace["x"]) <= 401 for trace in chart.traces)
    (ttft, *_) = distributions(document)
    scheduled = ttft.traces[0]
    figures = document["metrics"]["ttft_s"]
    assert scheduled["x"][0] == pytest.approx(figures["min"] * 1e3, rel=1e-4)
    assert scheduled["x"][-1] == pytest.approx(figures["max"] * 1e3, rel=1e-4)
    assert [round(share, 2) for share in scheduled["y"][:: len(scheduled["y"]) - 1]] == [0, 1]


def test_the_tokens_over_time_are_all_that_arrived(make_document):
    document = make_document(num_requests=100)
    rate = timelines(document)[0].traces[0]
    assert sum(rate["y"]) * rate["width"] == pytest.approx(100 * 16, rel=1e-4)


@pytest.mark.parametrize("num_points", [0, 1, 399, 400, 401, 10_000])
def test_a_timeline_of_any_length_is_drawn(make_document, num_points):
    document = make_document(num_requests=40)
    document["runs"][0]["timeline"] = [{"at_s": at, "running": 1, "waiting": None, "kv_cache_usage": 0.5} for at in range(num_points)]
    states = [chart for chart in timelines(document) if chart.id == "state"]
    assert len(states) == (num_points > 0)
    assert all(0 < len(trace["x"]) <= 400 and trace["name"] != "waiting" for chart in states for trace in chart.traces)


def test_where_no_request_succeeded_there_is_a_page(make_document):
    document = make_document(num_requests=30, invalid_reasons=["no request was answered whole"])
    for record in document["requests"]:
        record |= {"arrivals_s": [], "arrival_tokens": [], "output_tokens": None, "error": "refused", "error_kind": "refused"}
    empty = {"mean": None, "p50": None, "p90": None, "p99": None, "num_samples": 0, "ci": None}
    for metrics in (document["metrics"], document["from_send"], document["runs"][0]["metrics"]):
        metrics |= {name: empty for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s")} | {"output_tokens_per_s": None, "requests_per_s": 0.0}
    assert Outline(report_page(document)).open == []


@pytest.mark.parametrize("kind", ["startup", "memory", "quality", "latency"])
def test_the_other_kinds_have_a_page_of_what_they_measured(kind):
    document = result.assemble(
        kind,
        command="tokenport bench",
        settings={},
        target={"model": "a-model"},
        machine={},
        versions={},
        definitions={},
        metrics={"ready_s": {"mean": 20.5, "ci": {"mean": [19.5, 21.5]}}},
        ledger={"devices": [DEVICE]},
    )
    outline = Outline(report_page(document))
    assert outline.open == []
    assert "ready_s.mean" in outline.text
    assert "20.5 s" in outline.text
    assert "19.5 … 21.5 s" in outline.text
    assert [chart["id"] for chart in json.loads(outline.scripts[0])] == ["memory"]
    document["ledger"] = None
    assert Outline(report_page(document)).scripts == []


def test_single_streams_have_a_line_a_length(make_document):
    document = make_document(points=((1, 1), (2, 1)), num_requests=30) | {"kind": "latency", "metrics": {"num_requests": 60}}
    for run, length in zip(document["runs"], ("32", "128"), strict=True):
        run["load"] = {"kind": "closed", "concurrency": 1, "input_length": length}
    outline = Outline(report_page(document))
    assert "32 tokens of prompt" in outline.text
    assert "128 tokens of prompt" in outline.text
    assert [chart["id"] for chart in json.loads(outline.scripts[0])] == ["length-ttft_s", "length-tpot_s"]


def test_json_in_a_script_cannot_end_it():
    assert "<" not in in_script({"</script>": "<!--"})
    assert json.loads(in_script({"</script>": "<!--"})) == {"</script>": "<!--"}


def test_elements_escape_text_and_attributes_and_keep_markup():
    assert element("p", "<b>", element("i", "&"), class_='"x"', hidden=None) == '<p class="&quot;x&quot;">&lt;b&gt;<i>&amp;</i></p>'
    assert "<td>&lt;b&gt;</td>" in table(("<i>", "b"), [("a", "<b>")], caption="<c>")
    assert (
        tree({"<k>": [{"a": None}, "<v>"]})
        == "<dl><dt>&lt;k&gt;</dt><dd><ul><li><dl><dt>a</dt><dd>none</dd></dl></li><li>&lt;v&gt;</li></ul></dd></dl>"
    )
