import json

import pytest

from serving.__main__ import main
from serving.cascade.identity import chat_template_hash, model_hash, sampling_hash
from serving.cascade.policy_file import read_policy
from tests.unit.cascade.outcome_files import draw, line, write, write_lines


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outcomes")
    write(folder / "fit.jsonl", draw(1200, 0))
    write(folder / "held-out.jsonl", draw(1000, 1))
    return folder


def cascade(*words):
    return main(["cascade", *map(str, words)])


def fit(files, policy, *more):
    return cascade("fit", files / "fit.jsonl", "--quality", 0.95, "--confidence", 0.9, "--out", policy, *more)


def test_fit_writes_a_policy_and_shows_the_naive_threshold_beside_it(files, tmp_path, capsys):
    assert fit(files, tmp_path / "policy.json") == 0
    policy = read_policy(tmp_path / "policy.json")
    assert (policy.last_tier, policy.fitted_on.num_requests, policy.fitted_on.quality) == ("large", 1200, 0.95)
    said = capsys.readouterr()
    assert "tiers: small, large (assumed: by mean cost" in said.out
    assert "with the bound" in said.out
    assert "naive threshold" in said.out
    assert "assumed 32 (--hold-tokens)" in said.err
    assert "no server can tell when it is stale" in said.err


def test_tiers_may_have_spaces_between_them(files, tmp_path):
    assert fit(files, tmp_path / "policy.json", "--tiers", "small, large") == 0


def test_eval_prints_a_document_of_one_shape(files, tmp_path, capsys):
    fit(files, tmp_path / "policy.json")
    capsys.readouterr()
    assert cascade("eval", files / "held-out.jsonl", "--policy", tmp_path / "policy.json", "--json") == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert set(document["baselines"]) == {"small", "large", "random", "prompt_length", "oracle"}
    shape = {"quality", "cost", "share_large", "target_met", "quality_interval", "cost_interval", "share_large_interval"}
    for found in (document, document["naive"], *document["baselines"].values()):
        assert shape <= set(found)
        assert found["quality_interval"][0] <= found["quality"] <= found["quality_interval"][1]
    assert document["baselines"]["large"]["target_met"] is True
    assert document["warnings"] == []
    assert said.err == ""


def test_eval_prints_a_table_for_people(files, tmp_path, capsys):
    fit(files, tmp_path / "policy.json")
    assert cascade("eval", files / "held-out.jsonl", "--policy", tmp_path / "policy.json") == 0
    table = capsys.readouterr().out
    for name in ("policy", "naive threshold", "small", "large", "random", "prompt_length", "oracle"):
        assert f"\n{name} " in table


def test_eval_on_the_outcomes_of_the_fit_says_so(files, tmp_path, capsys):
    fit(files, tmp_path / "policy.json")
    cascade("eval", files / "fit.jsonl", "--policy", tmp_path / "policy.json", "--json")
    said = capsys.readouterr()
    assert "is what the policy was fitted on" in said.err
    assert json.loads(said.out.partition("\n{")[1] + said.out.partition("\n{")[2])["warnings"]


def test_what_the_policy_holds_for_is_written_down(files, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    facts = ("--model", f"small={model}", "--sampling", 'small={"temperature": 0}', "--valid-for", "large.model=sha256:abc")
    assert fit(files, tmp_path / "policy.json", *facts) == 0
    assert read_policy(tmp_path / "policy.json").valid_for == {
        "small.model": model_hash(model),
        "small.chat_template": chat_template_hash(model),
        "small.sampling": sampling_hash({"temperature": 0}),
        "large.model": "sha256:abc",
    }


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--valid-for", "medium.model=x"), "'medium.model' is none of the facts that the policy can be held to: small.model"),
        (("--valid-for", "small.model=x", "--valid-for", "small.model=y"), "'small.model' is given twice"),
        (("--model", "small=/nowhere"), "cannot read the model in /nowhere"),
        (("--tiers", "small,huge"), "has the tiers small, large"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(files, tmp_path, capsys, more, told):
    assert fit(files, tmp_path / "policy.json", *more) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "policy.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("fitt",), "unknown command 'fitt'; did you mean 'fit'?"),
        (("fit", "o.jsonl", "--confidence", "0.9", "--out", "p"), "the following arguments are required: --quality"),
        (("fit", "o.jsonl", "--quality", "95", "--confidence", "0.9", "--out", "p"), "--quality: 95 is not above 0 and at most 1"),
        (("fit", "o.jsonl", "--quality", "nan", "--confidence", "0.9", "--out", "p"), "--quality: nan is not above 0"),
        (("fit", "o.jsonl", "--quality", "0.9", "--confidence", "1", "--out", "p"), "--confidence: 1 is not between 0 and 1"),
        (("fit", "o.jsonl", "--quality", "0.9", "--confidence", "0.9", "--out", "p", "--hold-token", "3"), "did you mean --hold-tokens?"),
        (("fit", "o.jsonl", "--quality", "0.9", "--confidence", "0.9", "--out", "p", "--hold-tokens", "0"), "'0' is no number, 1 or more"),
        (("fit", "o.jsonl", "--quality", "0.9", "--confidence", "0.9", "--out", "p", "--model", "small"), "'small' is not NAME=VALUE"),
        (("fit", "o.jsonl", "--quality", "0.9", "--confidence", "0.9", "--out", "p", "--sampling", "small=[1]"), "'[1]' is no object"),
        (("eval", "o.jsonl"), "the following arguments are required: --policy"),
    ],
)
def test_a_wrong_command_line_ends_with_2_in_one_line(capsys, words, told):
    assert cascade(*words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("--help",), ("fit", "--help"), ("eval", "--help")])
def test_help_is_no_error(capsys, words):
    assert cascade(*words) == 0
    assert "tokenport cascade" in capsys.readouterr().out


def test_a_broken_outcome_file_is_told_with_its_line(tmp_path, capsys):
    good = {"small": {"quality": 1, "cost": 0.1}, "large": {"quality": 1, "cost": 1}}
    file = write_lines(tmp_path / "o.jsonl", [line(1, good), line(2, {**good, "small": {"quality": 2, "cost": 1}})])
    assert cascade("fit", file, "--quality", 0.95, "--confidence", 0.9, "--out", tmp_path / "p.json") == 1
    assert "line 2: outcomes.small.quality is 2; expected a number from 0 to 1" in capsys.readouterr().err


def test_signals_that_no_server_computes_are_told_when_fitting(tmp_path, capsys):
    lines = [
        line(number, {"small": {"quality": number % 2, "cost": 0.1, "signals": {"judge": number % 2}}, "large": {"quality": 1, "cost": 1}})
        for number in range(40)
    ]
    file = write_lines(tmp_path / "o.jsonl", lines)
    assert cascade("fit", file, "--quality", 0.9, "--confidence", 0.8, "--out", tmp_path / "p.json") == 0
    assert "the server does not compute judge: the policy can be evaluated, not served" in capsys.readouterr().err
