"""`tokenport bench latency` against a server whose timing is scripted."""

import json
from itertools import pairwise

import pytest

from benchmarks.__main__ import main
from benchmarks.client.running_stub import running_stub

TTFT_S, ITL_S = 0.15, 0.03


@pytest.fixture(scope="module")
def stub():
    with running_stub(ttft_s=TTFT_S, itl_s=ITL_S) as running:
        yield running


def test_each_length_is_measured_alone_and_its_times_are_the_scripts(stub, tmp_path, capsys):
    out = tmp_path / "latency.json"
    words = ["latency", stub.url, "--input-lens", "64,16", "--output-len", "6", "--repeats", "4", "--out", str(out)]
    main(words, {})  # whether this machine kept up decides between 0 and 3, and is tested elsewhere
    result = json.loads(out.read_text())
    assert result["kind"] == "latency"
    by_length = result["metrics"]["by_input_len"]
    assert list(by_length) == ["16", "64"]
    for metrics in by_length.values():
        assert metrics["ttft_s"]["num_samples"] == 4, "all requests count"
        assert metrics["ttft_s"]["min"] >= TTFT_S
        assert metrics["ttft_s"]["min"] < TTFT_S + 5 * ITL_S, "the first token is not the second"
        assert metrics["tpot_s"]["p50"] == pytest.approx(ITL_S, rel=0.5)
        assert metrics["e2e_s"]["min"] >= TTFT_S + 5 * ITL_S - 0.005
    sizes = []
    for run in result["runs"]:
        records = [record for record in result["requests"] if record["run"] == run["index"]]
        assert all(before["ended_s"] <= after["sent_s"] for before, after in pairwise(records)), "one at a time"
        sizes.append([record["prompt_tokens"] for record in records])
    assert max(sizes[0]) < min(sizes[1])
    assert "TPOT p50" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--input-lens", "12,x"], "--input-lens '12,x'"),
        (["--input-lens", "0"], "--input-lens '0'"),
        (["--repeats", "0"], "--repeats 0"),
    ],
)
def test_what_cannot_be_measured_is_told(stub, words, told, capsys):
    assert main(["latency", stub.url, *words], {}) == 2
    assert told in capsys.readouterr().err
