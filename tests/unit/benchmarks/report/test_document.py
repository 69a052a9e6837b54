"""The result file: whole or not there, read back as it was, and held against the published schema."""

import json
import math

import jsonschema
import numpy as np
import pytest

from benchmarks.report import document as result
from benchmarks.report import schema
from benchmarks.report.schema import schema_text
from serving.errors import BenchmarkError


def test_what_is_kept_is_what_is_read(make_document, tmp_path):
    document = make_document()
    result.keep(document, tmp_path / "new" / "result.json")
    assert result.load(tmp_path / "new" / "result.json") == document
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["result.json"]


def test_a_write_that_fails_leaves_the_file_before_it(make_document, tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    result.keep(make_document(), path)
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(result.os, "fsync", full)
    with pytest.raises(BenchmarkError, match="No space left"):
        result.keep(make_document(2), path)
    assert path.read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_is_one_line(make_document, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchmarkError, match="cannot be written"):
        result.keep(make_document(), tmp_path / "file" / "result.json")


def test_numbers_of_numpy_are_numbers_and_no_number_is_null(make_document):
    document = make_document(more={"energy": {"joules": np.float64(2.5), "count": np.int64(3), "lost": math.nan, "above": math.inf}})
    assert json.loads(result.as_text(document))["energy"] == {"joules": 2.5, "count": 3, "lost": None, "above": None}


def test_a_request_stands_on_a_line_of_its_own(make_document):
    text = result.as_text(make_document(num_requests=50))
    assert sum(line.startswith('  {"number"') for line in text.splitlines()) == 50


def test_the_key_to_the_server_is_not_kept(make_document):
    document = make_document(settings={"api_key": "sk-1"}, target={"headers": {"Authorization": "Bearer sk-1"}})
    assert "sk-1" not in result.as_text(document)
    again = result.assemble(**{**document_parts(document), "command": ["bench", "--api-key", "sk-2", "--api-key=sk-3", "--url", "u"]})
    assert again["command"] == ["bench", "--api-key", "***", "--api-key=***", "--url", "u"]
    assert (
        result.assemble(**{**document_parts(document), "command": "bench --api-key sk-2 --url u"})["command"]
        == "bench --api-key *** --url u"
    )


def document_parts(document):
    names = ("kind", "command", "settings", "target", "machine", "versions", "definitions", "metrics", "from_send", "runs", "requests")
    return {name: document[name] for name in names}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[1]", "no result of tokenport bench"),
        ('{"rows": []}', "no schema_version"),
        ('{"schema_version": true}', "no schema_version"),
        ('{"schema_version": 2}', "newer tokenport"),
        ('{"schema_version": 1}', r"a\.json is no whole result of tokenport bench: '\w+' is a required property"),
    ],
)
def test_a_file_that_is_no_result_is_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BenchmarkError, match=words) as raised:
        result.load(tmp_path / "a.json")
    assert "a.json" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BenchmarkError, match=r"absent\.json cannot be read"):
        result.load(tmp_path / "absent.json")


def test_the_schema_is_one():
    published = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(published)
    assert published["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert [
        name
        for name, field in published["properties"].items()
        if "description" not in field and "$ref" not in field and "anyOf" not in field
    ] == []


@pytest.mark.parametrize("name", sorted(json.loads(schema_text())["required"]))
def test_every_required_field_is_missed(make_document, name):
    document = make_document(num_requests=20)
    del document[name]
    with pytest.raises(BenchmarkError, match=name):
        schema.check(document)


def broken(document, path, value):
    *parents, last = path
    place = document
    for key in parents:
        place = place[key]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "speed"),
        (("schema_version",), 0),
        (("invalid_reasons",), ["but it is said to be valid"]),
        (("valid",), False),
        (("metrics", "output_tokens_per_s"), -1.0),
        (("metrics", "output_tokens_per_s"), "fast"),
        (("metrics", "ttft_s"), 0.1),
        (("metrics", "ttft_s", "ci", "mean"), [1.0]),
        (("metrics", "errors"), {"timeout": 0.5}),
        (("from_send",), None),
        (("runs",), []),
        (("runs", 0, "window"), {"start_s": 0}),
        (("runs", 0, "load", "concurrency"), 0),
        (("requests", 3, "arrivals_s"), None),
        (("requests", 3, "arrivals_s"), ["soon"]),
        (("requests", 299, "arrivals_s"), ["soon"]),
        (("requests", 299, "sent_s"), "soon"),
        (("pair",), {"id": "x", "position": "2", "round": 1}),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_wrong_value_is_found_and_named(make_document, path, value):
    document = make_document(num_requests=300)
    schema.check(document)
    with pytest.raises(BenchmarkError) as raised:
        schema.check(broken(document, path, value))
    assert path[0] in str(raised.value) or path == ("valid",)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("kind", ["latency", "startup", "memory", "quality"])
def test_the_other_kinds_have_metrics_of_their_own(kind):
    document = result.assemble(
        kind,
        command="tokenport bench",
        settings={},
        target={"model": "a-model"},
        machine={},
        versions={},
        definitions={"ready_s": "Seconds until ready."},
        metrics={"ready_s": {"mean": 20.0}},
    )
    assert document["verdict"]
