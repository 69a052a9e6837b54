"""What a person reads on the terminal: the reasons first, the verdict, the figures with intervals or why there are none."""

import io

import pytest
from rich.console import Console

from benchmarks.report.limits import cost_in_words, energy_in_words, share_in_words
from benchmarks.report.progress import RunProgress
from benchmarks.report.terminal import show
from benchmarks.report.verdict import chosen_runs, in_words
from benchmarks.report.words import interval, load_name, number, percent, quantity, seconds, size


def printed(document, *, is_terminal=False, width=140):
    out = io.StringIO()
    show(
        document,
        Console(file=out, force_terminal=is_terminal, width=width, highlight=False, color_system="standard" if is_terminal else None),
    )
    return out.getvalue()


def test_the_table_tells_both_origins_side_by_side_with_intervals(make_document):
    document = make_document(1, num_requests=300)
    (line,) = [line for line in printed(document).splitlines() if line.startswith("TTFT")]
    scheduled, sent = document["metrics"]["ttft_s"], document["from_send"]["ttft_s"]
    assert (
        line.split()
        == " ".join(
            ["TTFT mean", *(f"{seconds(side['mean'])} {interval(side['ci']['mean'], seconds)}" for side in (scheduled, sent))]
        ).split()
    )
    assert scheduled["mean"] - sent["mean"] == pytest.approx(0.001, rel=0.01)


def test_too_few_samples_are_said_with_their_number(make_document):
    lines = printed(make_document(1, num_requests=60)).splitlines()
    assert [line.count("too few samples (56)") for line in lines if " p99 " in line] == [2, 2, 0, 2]


def test_an_invalid_run_begins_with_why(make_document):
    document = make_document(1, num_requests=60, invalid_reasons=["the client limited the run", "and it was interrupted"])
    lines = printed(document).splitlines()
    assert lines[0].startswith("INVALID")
    assert [line.strip() for line in lines[1:3]] == ["the client limited the run", "and it was interrupted"]
    assert "\x1b" not in printed(document)
    assert "\x1b[1;31mINVALID" in printed(document, is_terminal=True)
    assert "INVALID" not in printed(make_document(1, num_requests=60))


def test_failed_requests_are_counted_by_kind(make_document):
    document = make_document(1, num_requests=60, num_failed=3)
    document["metrics"]["errors"] = {"timeout": 1, "broken": 2}
    assert "3 of 56 requests failed (broken 2, timeout 1)." in printed(document)


def test_a_sweep_is_a_line_a_run(make_document):
    lines = printed(make_document(1, points=((1, 1), (4, 2)), num_requests=50)).splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("concurrency")] == [
        "concurrency 1, repeat 1",
        "concurrency 4, repeat 1",
        "concurrency 4, repeat 2",
    ]


def test_what_a_name_holds_is_no_markup(make_document):
    assert "[red]model[/red]" in printed(make_document(1, num_requests=30, target={"model": "[red]model[/red]"}))


def test_limit_cost_and_energy_stand_in_table_and_words(make_document):
    more = {
        "efficiency": {"mbu": 0.413, "mfu": 0.0721, "mfu_decode": 0.05, "reasons": {}},
        "cost": {
            "usd_per_million_output_tokens": 0.524,
            "usd_per_million_tokens_blended": None,
            "rate_kind": "goodput",
            "usd_per_hour": 1.4,
        },
        "energy": {"joules_per_output_token": 0.512, "mean_power_w": 301.4, "invalid_reasons": []},
    }
    document = make_document(1, num_requests=60, more=more)
    told = printed(document)
    for words in (
        "41.3 % of memory bandwidth (MBU), 7.2 % of arithmetic (MFU)",
        "$0.52 per million output tokens (at goodput, $1.40 an hour)",
        "0.512 J an output token, 301 W in the mean",
    ):
        assert words in told
    assert "Of what this machine can do, that is 41.3 % of memory bandwidth" in document["verdict"]


def test_what_is_not_known_is_said_with_its_reason():
    assert share_in_words({"efficiency": {"mbu": None, "mfu": None, "reasons": {"mbu": "no ledger"}}}) == "not known: no ledger"
    assert (
        energy_in_words({"energy": {"invalid_reasons": ["GPU 0: not read"], "joules_per_output_token": 1.0}})
        == "not known: GPU 0: not read"
    )
    assert [told({}) for told in (share_in_words, cost_in_words, energy_in_words)] == [None, None, None]


def test_the_verdict_tells_what_came_out_and_what_speaks_against_it(make_document):
    document = make_document(1, num_requests=60, num_failed=2, more={"warnings": ["the server gave no usage for 3 answers"]})
    words = document["verdict"]
    assert words.startswith("a-model at concurrency 4: ")
    for part in (
        "output tokens/s and",
        "32 tokens in and",
        "The first token took",
        "2 of 56 requests failed (broken 2).",
        "too few for a p99",
    ):
        assert part in words
    assert "The server gave no usage for 3 answers." in words
    assert "One run: its intervals" in words
    assert "None of 56 requests failed." in make_document(1, num_requests=60)["verdict"]


def test_an_invalid_verdict_is_not_to_be_quoted(make_document):
    assert make_document(1, num_requests=60, invalid_reasons=["x", "y"])["verdict"].startswith("INVALID, do not quote: x; y. a-model")


def test_repeats_are_told_and_have_no_doubt_of_one_run(make_document):
    words = make_document(1, points=((4, 3),), num_requests=60)["verdict"]
    assert "concurrency 4 (3 repeats)" in words
    assert "One run" not in words


def test_the_runs_on_top_are_those_that_the_document_chose(make_document):
    document = make_document(1, points=((1, 1), (4, 2)), num_requests=50, more={"chosen": [1, 2]})
    assert [run["index"] for run in chosen_runs(document)] == [1, 2]
    assert "at concurrency 4 (2 repeats)" in in_words(document)


def test_where_nothing_was_measured_it_says_so(make_document):
    document = make_document(1, num_requests=30, invalid_reasons=["nothing"])
    empty = {"mean": None, "p50": None, "p90": None, "p99": None, "num_samples": 0, "ci": None}
    document["metrics"] |= {"ttft_s": empty, "tpot_s": empty, "e2e_s": empty, "output_tokens_per_s": None, "requests_per_s": None}
    assert "no throughput could be measured" in in_words(document)
    assert "too few samples (0)" in printed(document)


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (number, 1234.5, "1,234"), (number, 12.345, "12.3"), (number, 0.01234, "0.0123"), (number, 7, "7"), (number, None, "-"),
        (number, True, "-"), (seconds, 0.01234, "12.3 ms"), (seconds, 0.1234, "123 ms"), (seconds, 0.00001234, "12.3 µs"),
        (seconds, 1.234, "1.23 s"), (seconds, 75.0, "75 s"), (seconds, 0, "0.00 s"), (percent, 0.1234, "12.3 %"), (percent, 1.0, "100 %"),
        (size, 2**30, "1.00 GiB"), (size, 2**20, "1.0 MiB"),
    ],
)  # fmt: skip
def test_figures_are_short(form, value, text):
    assert form(value) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("output_tokens_per_s", 12.0, "12 /s"), ("ttft_s.p99", 0.1, "100 ms"), ("phases_s.loading", 2.5, "2.50 s"),
        ("by_input_len.32.ttft_s.p50", 0.0385, "38.5 ms"),
        ("by_input_len.32.ttft_s.num_samples", 12, "12"), ("peers.vllm.ready_s.mean", 20.5, "20.5 s"),
        ("free_bytes", 2**31, "2.00 GiB"),
        ("failed_share", 0.5, "50.0 %"), ("perplexity", 12.34, "12.3"), ("requests_per_s", None, "-"),
    ],
)  # fmt: skip
def test_a_unit_comes_from_the_name(name, value, text):
    assert quantity(name, value) == text


@pytest.mark.parametrize(
    ("load", "name"),
    [
        ({"kind": "closed", "concurrency": 8, "rate": None}, "concurrency 8"),
        ({"kind": "open", "concurrency": None, "rate": 2.5}, "2.5 requests/s"),
        ({"kind": "open", "concurrency": 4, "rate": 1234.56}, "1234.56 requests/s, at most 4 at once"),
        ({"kind": "trace"}, "trace"),
        (None, "the run"),
    ],
)
def test_a_load_has_a_name(load, name):
    assert load_name(load) == name


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((0.01, 0.012), "10.0 … 12.0 ms"),
        ((0.9, 1.2), "900 ms … 1.20 s"),
        ((None, 0.1), "- … 100 ms"),
        ((0.1, None), "100 ms … -"),
        (None, ""),
    ],
)
def test_an_interval_tells_its_unit_once(bounds, text):
    assert interval(bounds, seconds) == text


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_a_terminal_of_eighty_columns(make_document, width):
    lines = printed(make_document(1, num_requests=200), width=width).splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("latency")]
    for figure in ("mean", "p50", "p90", "p99"):
        assert sum(f" {figure} " in line for line in lines[heads[0] :]) == 4
    assert max(map(len, lines)) <= width
    assert len([line for line in lines if line.strip() in ("ms", "s", "%")]) == 0


def shown(*, is_terminal, total, duration_s, passed_s, **counts):
    out, now = io.StringIO(), [100.0]
    console = Console(file=out, force_terminal=is_terminal, width=140, color_system=None)
    with RunProgress("concurrency 4", total, duration_s, console, lambda: now[0]) as progress:
        now[0] += passed_s
        progress.update(**counts)
        share = progress._progress.tasks[0].percentage
        progress._progress.refresh()
    return out.getvalue(), share


COUNTS = {"sent": 30, "done": 20, "failed": 5, "output_tokens": 4000}


def test_progress_tells_how_far_the_run_is():
    text, share = shown(is_terminal=True, total=100, duration_s=None, passed_s=2.0, **COUNTS)
    assert "concurrency 4" in text
    assert "30 sent, 20 done, 5 failed, 2,000 tokens/s" in text
    assert share == 25


def test_progress_is_silent_where_nobody_looks():
    assert shown(is_terminal=False, total=100, duration_s=None, passed_s=2.0, **COUNTS)[0] == ""


@pytest.mark.parametrize(
    ("total", "duration_s", "expected"), [(None, 8.0, 25), (1000, 8.0, 25), (50, 8.0, 50), (10, 1.0, 100), (None, None, 0)]
)
def test_progress_follows_what_ends_the_run_first(total, duration_s, expected):
    assert shown(is_terminal=True, total=total, duration_s=duration_s, passed_s=2.0, **COUNTS)[1] == expected
