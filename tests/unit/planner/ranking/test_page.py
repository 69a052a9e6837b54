"""The page of a ranking: one file that asks for nothing and cannot be made to say what it is not."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from serving.planner.instances import find_instance, load_hardware
from serving.planner.model import model_of
from serving.planner.plan import PlanRequest
from serving.planner.ranking.operation import Target
from serving.planner.ranking.page import ranking_page
from serving.planner.ranking.ranking import Ranker
from serving.planner.speed.efficiency import published_efficiency
from serving.planner.speed.speed import Flow
from tests.unit.planner.known_models import CONFIGS

NAME = '<script>alert("a")</script> & more'
VOID = {"meta", "link", "br", "img", "input", "hr"}
CONFIG = CONFIGS["Llama-3.2-1B"]


class Page(HTMLParser):
    """Checks that every element is closed, and keeps what there is."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(target):
    model, request = model_of(NAME, CONFIG), PlanRequest(context=8192, concurrency=4)
    ranking = Ranker(model, request, target, published_efficiency()).rank(list(load_hardware().instances.values()))
    return ranking_page(ranking, model, request, ["a line that is assumed"])


@pytest.fixture(scope="module")
def text():
    return page_of(Target(Flow(1000, 200, 4), ttft_s=2, tpot_s=0.05, usd_per_hour=5))


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_it_is_whole_html(text, page):
    assert text.startswith("<!doctype html>\n<html")
    assert page.elements[0] == "html"


def test_it_runs_no_script_and_asks_for_nothing(text, page):
    assert not {"script", "link", "img", "iframe", "object"} & set(page.elements)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert not re.search(r"url\(|@import|https?://", text)
    policies = [value for name, value in page.attributes if name == "content" and "default-src 'none'" in value]
    assert len(policies) == 1


def test_the_models_name_is_text(text, page):
    assert "<script>" not in text
    assert any(NAME in piece for piece in page.text)


def test_it_has_the_memory_the_frontier_and_the_tables(page):
    words = " ".join(page.text)
    assert page.elements.count("svg") >= 2
    assert page.elements.count("table") == 3
    for expected in ("KV cache", "USD per million output tokens", "why not", "keeps the target", "more that keep the target"):
        assert expected in words
    for expected in ("tokenport deploy endpoint", "a line that is assumed"):
        assert expected in words


def test_it_fits_a_phone_and_the_dark(text, page):
    assert ("name", "viewport") in page.attributes
    assert "prefers-color-scheme: dark" in text


def test_the_memory_of_the_first_comes_first(page):
    captions = [piece for piece in page.text if re.fullmatch(r"ml\.\S+, \S.*, \d+ x \d+", piece)]
    first = next(piece for piece in page.text if piece.startswith("To run the first, ")).removeprefix("To run the first, ")
    assert captions[0].startswith(f"{first}, ")
    assert len({caption.split(",")[0] for caption in captions}) == len(captions)


def test_costs_of_any_size_have_their_place_on_the_axis():
    target = Target(Flow(1000, 200, 4))
    machines = [replace(find_instance("ml.g6e.xlarge"), name=f"box at {usd}", price_per_hour=usd) for usd in (1e-9, 1e9)]
    model, request = model_of(NAME, CONFIG), PlanRequest(context=8192, concurrency=4)
    ranking = Ranker(model, request, target, published_efficiency()).rank(machines)
    assert "box at 1000000000.0" in ranking_page(ranking, model, request, [])


def test_where_nothing_keeps_the_target_it_says_so():
    found = Page(page_of(Target(Flow(1000, 200, 4), ttft_s=1e-6)))
    assert "Nothing keeps the target" in found.text
