"""`tokenport bench compare`: exit codes, files, and runs measured in turn."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.commands import paired
from benchmarks.commands.compare import run, sides_from
from benchmarks.report.document import keep, load
from serving.errors import BenchmarkError


@pytest.fixture(scope="module")
def files(make_document, tmp_path_factory):
    """A run, one like it, one with slower tokens and one that is invalid."""
    documents = {
        "base": make_document(1, num_requests=110),
        "same": make_document(2, num_requests=110),
        "slow": make_document(3, num_requests=110, tpot_s=0.012),
        "invalid": make_document(4, num_requests=110, invalid_reasons=["the client was slow"]),
    }
    folder = tmp_path_factory.mktemp("results")
    for name, document in documents.items():
        keep(document, folder / f"{name}.json")
    return {name: str(folder / f"{name}.json") for name in documents}


@pytest.mark.parametrize(
    ("names", "more", "code"),
    [
        (("base", "same"), (), 0),
        (("base", "same"), ("--fail-if", "tok_s < -5%"), 0),
        (("base", "slow"), (), 0),
        (("base", "slow"), ("--fail-if", "tok_s < -5%"), 1),
        (("base", "slow"), ("--fail-if", "tok_s < -50%"), 0),
        (("base", "slow"), ("--fail-if", "ttft > 5%", "--fail-if", "tpot > 5%"), 1),
        (("base", "same", "slow"), ("--fail-if", "tok_s < -5%"), 1),
        (("slow", "base"), ("--fail-if", "tok_s < -5%"), 0),
        (("base", "invalid"), (), 3),
        (("invalid", "base"), ("--fail-if", "tok_s < -5%"), 3),
    ],
)
def test_the_exit_code_tells_the_outcome(files, names, more, code, capsys):
    assert run([*(files[name] for name in names), *more], {}) == code
    assert ("FAILED" in capsys.readouterr().out) == (code == 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "two results or more"),
        (["{base}"], "two results or more"),
        (["{base}", "absent.json"], "cannot be read"),
        (["{base}", "{same}", "--fail-if", "speed < 1"], "there are tok_s"),
        (["{base}", "{same}", "--fail-if", "tok_s"], "METRIC OP NUMBER"),
        (["{base}", "{same}", "--fail-if", "ttft_p99 > 5%"], None),
        (["{base}", "{same}", "--out-dir", "rounds"], "goes with --paired"),
        (["--paired", "throughput", "throughput"], "needs --out-dir"),
        (["--paired", "--out-dir", "x", "--rounds", "1", "throughput", "throughput"], "two or more"),
        (["--paired", "--out-dir", "x", "throughput"], "2 to 8 commands"),
        (["--paired", "--out-dir", "x", "throughput", "compare a b"], "begin with what measures"),
        (["--paired", "--out-dir", "x", "throughput", "startup"], "measure the same"),
        (["--paired", "--out-dir", "x", "throughput", "throughput --out=y"], "leave --out away"),
    ],
)
def test_a_wrong_command_line_is_one_line(files, words, told):
    words = [word.format(**files) if word.startswith("{") else word for word in words]
    if told is None:
        assert run(words, {}) == 0
        return
    with pytest.raises(BenchmarkError, match=told) as raised:
        run(words, {})
    assert "\n" not in str(raised.value)


def test_words_that_no_option_knows_are_exit_code_2(files):
    with pytest.raises(SystemExit) as raised:
        run([files["base"], files["same"], "--fail-fi", "tok_s < 1"], {})
    assert raised.value.code == 2


def test_options_may_stand_between_the_files(files, tmp_path, capsys):
    assert run([files["base"], "--json", str(tmp_path / "out.json"), files["slow"], "--html", str(tmp_path / "out.html")], {}) == 0
    kept = json.loads((tmp_path / "out.json").read_text())
    (comparison,) = kept["comparisons"]
    assert (comparison["a"], comparison["b"], kept["failed"]) == ("base.json", "slow.json", [])
    figures = {one["metric"]: one for one in comparison["loads"]["concurrency 4"]}
    slower = figures["tpot_s.mean"]
    assert (slower["verdict"], slower["difference"]) == ("worse", pytest.approx(0.002, rel=0.1))
    assert slower["spread"]["relative_low"] < slower["spread"]["relative"] < slower["spread"]["relative_high"]
    page = (tmp_path / "out.html").read_text()
    assert "slow.json (B) against base.json (A)" in page
    assert '<span class="worse">worse</span>' in page
    assert "<script" not in page
    assert "script-src 'none'" in page
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "95 % intervals: Welch's t over blocks of the steady window" in printed
    assert "One run a side" in printed


def test_a_hostile_name_is_text_on_the_page(make_document, tmp_path):
    for name, model in (("a", "<script>alert(1)</script>"), ("b", "b")):
        keep(make_document(1, num_requests=40, target={"model": model}), tmp_path / f"{name}.json")
    run([str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--html", str(tmp_path / "c.html")], {})
    page = (tmp_path / "c.html").read_text()
    assert "the models differ: &lt;script&gt;" in page
    assert "<script" not in page


class Server:
    """Stands for the process of a command: writes a result as it would; the pace of both sides drifts from run to run."""

    def __init__(self, make_document, codes=()):
        self.make_document = make_document
        self.codes = list(codes)
        self.calls = []

    def __call__(self, words, timeout_s):
        number = len(self.calls)
        self.calls.append(list(words))
        code = self.codes[number] if number < len(self.codes) else 0
        pace = (0.01 if "A" in words else 0.0106) * (1 + 0.05 * (number // 2))
        if code in (0, 3):
            reasons = ["the client was slow"] if code == 3 else []
            document = self.make_document(number + 1, num_requests=80, tpot_s=pace, invalid_reasons=reasons)
            keep(document, Path(words[words.index("--out") + 1]))
        return code


SIDES = ["throughput --url A", "throughput --url B"]


@pytest.fixture
def server(make_document, monkeypatch):
    server = Server(make_document)
    monkeypatch.setattr("benchmarks.commands.compare.as_process", lambda environ: server)
    return server


def test_sides_are_measured_in_turn_and_compared_by_round(server, tmp_path, capsys):
    folder = tmp_path / "rounds"
    words = ["--paired", "--rounds", "4", "--out-dir", str(folder), "--fail-if", "tpot > 3%", "--", *SIDES]
    assert run(words, {}) == 1
    assert [call[-1] for call in server.calls] == ["A", "B"] * 4
    assert sorted(path.name for path in folder.iterdir()) == [f"round-0{number}-{letter}.json" for number in range(1, 5) for letter in "ab"]
    pairs = [load(path)["pair"] for path in sorted(folder.iterdir())]
    assert [(pair["position"], pair["round"]) for pair in pairs] == [(letter, number) for number in range(1, 5) for letter in "AB"]
    assert len({pair["id"] for pair in pairs}) == 1
    assert "Student's t over the differences within rounds (4 rounds)" in capsys.readouterr().out
    assert run([str(folder), "--fail-if", "tpot > 3%"], {}) == 1
    (folder / "round-04-b.json").unlink()
    assert [side.name for side in sides_from(sorted(folder.iterdir()))] == ["A (3 rounds)", "B (3 rounds)"]


def test_every_other_round_can_be_turned(server, tmp_path):
    run(["--paired", "--rounds", "3", "--order", "abba", "--out-dir", str(tmp_path / "rounds"), *SIDES], {})
    assert [call[-1] for call in server.calls] == ["A", "B", "B", "A", "A", "B"]


def test_a_command_that_fails_ends_it_and_an_invalid_run_does_not(server, tmp_path):
    server.codes = [0, 3, 0, 0]
    assert run(["--paired", "--rounds", "2", "--out-dir", str(tmp_path / "invalid"), *SIDES], {}) == 3
    server.calls.clear()
    server.codes = [0, 0, 2]
    with pytest.raises(BenchmarkError, match="round 2, A: throughput --url A ended with exit code 2"):
        run(["--paired", "--rounds", "2", "--out-dir", str(tmp_path / "failed"), *SIDES], {})
    assert len(list((tmp_path / "failed").iterdir())) == 2
    with pytest.raises(BenchmarkError, match="has results already"):
        run(["--paired", "--rounds", "2", "--out-dir", str(tmp_path / "failed"), *SIDES], {})


def test_what_a_side_starts_its_server_with_is_left_to_the_server(server, tmp_path):
    sides = [f"throughput --serve A -- --out {letter} --dtype 'b f'" for letter in "ab"]
    run(["--paired", "--rounds", "2", "--out-dir", str(tmp_path / "rounds"), "--", *sides], {})
    assert server.calls[0] == [
        "throughput",
        "--out",
        str(tmp_path / "rounds/round-01-a.json"),
        "--serve",
        "A",
        "--",
        "--out",
        "a",
        "--dtype",
        "b f",
    ]


def test_a_side_is_a_process_with_its_words_and_a_deadline(monkeypatch):
    seen = {}

    def as_run(command, **options):
        seen.update(options, command=command)
        return paired.subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(paired.subprocess, "run", as_run)
    assert paired.as_process({"NAME": "value"})(["throughput", "--out", "x"], 5.0) == 3
    assert seen["command"] == [sys.executable, "-P", "-m", "benchmarks", "throughput", "--out", "x"]
    assert (seen["env"], seen["timeout"], seen["stdout"]) == ({"NAME": "value"}, 5.0, sys.stderr)

    def late(command, **options):
        raise paired.subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(paired.subprocess, "run", late)
    with pytest.raises(BenchmarkError, match="was not over after 5 s"):
        paired.as_process({})(["throughput"], 5.0)
