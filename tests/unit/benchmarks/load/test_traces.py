"""Traces: each format by a sample as it is published, and each fault by file, line and field."""

import json

import pytest

from benchmarks.load.traces import read_trace
from serving.errors import BenchmarkError

MOONCAKE = """\
{"timestamp": 0, "input_length": 655, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 10535, "input_length": 672, "output_length": 26, "hash_ids": [46, 47]}
{"timestamp": 27482, "input_length": 1025, "output_length": 1, "hash_ids": [46, 48, 49]}
"""
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
AZURE_OF_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:01+00:00,2399,6
"""
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118,GPT-4,417,276,693,API log
"""
BURSTGPT_WITH_SESSIONS = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
19440110.5,,2.1,GPT-4,417,276,693,API log
"""


@pytest.fixture
def trace(tmp_path):
    def read(text, **limits):
        (tmp_path / "trace").write_text(text)
        return read_trace(tmp_path / "trace", **limits)

    return read


def lengths(trace):
    return [(entry.input_tokens, entry.output_tokens) for entry in trace.entries]


def test_tokenports_own(trace):
    lines = [
        {"at_s": 3, "input_tokens": 10, "output_tokens": 2},
        {"at_s": 1.5, "prompt": "Who are you?", "output_tokens": 4, "conversation": 7},
        {"at_s": 4, "messages": [{"role": "user", "content": "Hm."}], "output_tokens": 5, "conversation": "a"},
    ]
    read = trace("\n\n".join(json.dumps(line) for line in lines))
    assert read.format == "tokenport"
    first, second, third = read.entries
    assert (first.at_s, first.prompt, first.input_tokens, first.conversation) == (1.5, "Who are you?", None, "7")
    assert (second.at_s, second.input_tokens, second.output_tokens, second.conversation) == (3.0, 10, 2, None)
    assert third.prompt == ({"role": "user", "content": "Hm."},)


def test_mooncake(trace):
    read = trace(MOONCAKE)
    assert read.format == "mooncake"
    assert [entry.at_s for entry in read.entries] == [0.0, 10.535, 27.482]
    assert lengths(read) == [(655, 52), (672, 26), (1025, 1)]
    assert read.entries[2].hash_ids == (46, 48, 49)


@pytest.mark.parametrize(("text", "gap_s"), [(AZURE, 4.314579), (AZURE_OF_2024, 0.99007)])
def test_azure(trace, text, gap_s):
    read = trace(text)
    assert read.format == "azure"
    assert read.entries[1].at_s - read.entries[0].at_s == pytest.approx(gap_s, abs=1e-6)
    assert lengths(read)[0] == ((374, 44) if text is AZURE else (2162, 5))


def test_burstgpt_leaves_out_what_failed_and_says_how_many(trace):
    read = trace(BURSTGPT)
    assert read.format == "burstgpt"
    assert [entry.at_s for entry in read.entries] == [5.0, 118.0]
    assert lengths(read) == [(472, 18), (417, 276)]
    assert read.num_left_out == 1


def test_burstgpt_with_sessions(trace):
    read = trace(BURSTGPT_WITH_SESSIONS)
    assert (read.format, read.entries[0].at_s, lengths(read)) == ("burstgpt", 19440110.5, [(417, 276)])


def test_the_limit_counts_requests_from_the_files_first(trace):
    assert lengths(trace(BURSTGPT, limit=2)) == [(472, 18), (417, 276)]
    assert lengths(trace(MOONCAKE, limit=1)) == [(655, 52)]
    # What comes behind is not even read.
    assert len(trace(MOONCAKE + "rubbish\n", limit=3).entries) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        ("when,what\n1,2\n", 'must be JSON lines of {"at_s", "input_tokens", "output_tokens"} (Tokenport\'s own)'),
        ('{"time": 1}\n', "its first line is '{\"time\": 1}'"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "the trace has no requests"),
    ],
)
def test_what_is_no_trace_is_refused(trace, text, told):
    with pytest.raises(BenchmarkError) as error:
        trace(text)
    assert str(error.value).startswith("--trace ")
    assert told in str(error.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(BenchmarkError, match=r"--trace .*none: the file cannot be read"):
        read_trace(tmp_path / "none")


OWN = '{"at_s": 1, "input_tokens": 3, "output_tokens": 4}\n'


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (OWN + "{", 2, "is no JSON"),
        (OWN + "[]", 2, "must be a JSON object"),
        (OWN + '{"at_s": "1", "input_tokens": 3, "output_tokens": 4}', 2, 'at_s must be a number of at least zero, and is "1"'),
        (OWN + '{"at_s": -1, "input_tokens": 3, "output_tokens": 4}', 2, "at_s must be a number of at least zero, and is -1"),
        (OWN + '{"at_s": 1, "output_tokens": 4}', 2, "input_tokens must be a whole number of at least 1, and is null"),
        (OWN + '\n{"at_s": 1, "input_tokens": 3, "output_tokens": 0}', 3, "output_tokens must be a whole number of at least 1, and is 0"),
        (OWN + '{"at_s": 1, "input_tokens": true, "output_tokens": 1}', 2, "input_tokens must be"),
        (OWN + '{"at_s": 1, "input_tokens": 3, "prompt": "a", "output_tokens": 1}', 2, "has both input_tokens and the prompt itself"),
        (OWN + '{"at_s": 1, "input_tokens": 3, "output_tokens": 1, "model": "x"}', 2, "has an unknown field 'model': known are at_s"),
        (
            OWN + '{"at_s": 1, "input_tokens": 3, "output_tokens": 1, "conversation": 1.5}',
            2,
            "conversation must be a text or a whole number",
        ),
        (MOONCAKE.replace("[46, 48, 49]", "[46]"), 3, "hash_ids must have 3 numbers, one for each 512 of input_length, and has 1"),
        (MOONCAKE.replace("[46, 48, 49]", "46"), 3, "hash_ids must be a list of whole numbers"),
        (MOONCAKE.replace("672", "null"), 2, "input_length must be a whole number of at least 1, and is null"),
        (AZURE.replace("2023-11-16 18:15:50.9951690", "soon"), 3, "TIMESTAMP must be a date and time, and is 'soon'"),
        (AZURE.replace("396", "?"), 3, "ContextTokens must be a whole number, and is '?'"),
        (AZURE.replace(",109", ""), 3, "has 2 fields, and the header 3"),
        (BURSTGPT.replace("118", "x"), 4, "Timestamp must be a number of seconds, and is 'x'"),
        (BURSTGPT.replace("276", "-1"), 4, "Response tokens must be a whole number, and is '-1'"),
    ],
)
def test_a_malformed_line_is_told_with_its_number_and_field(trace, text, line, told):
    with pytest.raises(BenchmarkError) as error:
        trace(text)
    assert f"trace line {line} {told}" in str(error.value)
