import json

import pytest

from benchmarks.cascade_outcomes import summary
from benchmarks.routellm import main, outcomes, write
from serving.cascade.fitting.outcomes import read_outcomes
from serving.errors import BenchmarkError

HEAD = "prompt,mistralai/Mixtral-8x7B-Instruct-v0.1,gpt-4-1106-preview,gpt-4-1106-preview_response\n"


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "routellm" / "evals" / "gsm8k"
    folder.mkdir(parents=True)
    (folder / "gsm8k_responses.csv").write_text(HEAD + '"How, many?",False,True,"4\n#### 4"\nWhy?,True,True,x\n"How, many?",True,True,y\n')
    return tmp_path


def test_rows_become_lines_that_fit_reads_and_a_question_counts_once(repository, tmp_path):
    lines = outcomes(repository, "gsm8k", 0.2)
    write(tmp_path / "outcomes.jsonl", lines)
    read = read_outcomes(tmp_path / "outcomes.jsonl")
    assert read.tiers == ("mixtral-8x7b", "gpt-4-1106")
    assert read.quality.tolist() == [[0, 1], [1, 1]]
    assert read.cost.tolist() == [[0.2, 1], [0.2, 1]]
    assert [messages[0]["content"] for messages in read.messages] == ["How, many?", "Why?"]
    assert json.loads((tmp_path / "outcomes.jsonl").read_text().splitlines()[1])["id"] == "gsm8k_responses-1"


def test_a_folder_without_the_data_is_told_where_it_comes_from(tmp_path):
    with pytest.raises(BenchmarkError, match=r"name a clone of https://github\.com/lm-sys/RouteLLM"):
        outcomes(tmp_path, "mmlu", 0.1)


def test_data_of_another_form_is_refused(repository):
    (repository / "routellm" / "evals" / "gsm8k" / "gsm8k_responses.csv").write_text("prompt,gpt-5\nWhy?,True\n")
    with pytest.raises(BenchmarkError, match=r"has no 'mistralai/Mixtral-8x7B-Instruct-v0.1' in its row 0"):
        outcomes(repository, "gsm8k", 0.1)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--num", "3"], "--num 3: there are 2 questions"),
        (["--num", "0"], "--num 0: there are 2 questions"),
        (["--price-ratio", "-1"], "--price-ratio -1.0: Mixtral's price by GPT-4's, from 0 to less than 1"),
    ],
)
def test_what_cannot_be_written_is_told_by_its_option(repository, tmp_path, capsys, more, told):
    with pytest.raises(SystemExit, match="2"):
        main([str(repository), "gsm8k", "--out", str(tmp_path / "o.jsonl"), *more])
    assert told in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()


def test_the_summary_has_means_over_the_divisions_and_what_they_save():
    def row(seed, share, is_met):
        line = {"quality": 0.8, "quality_ratio": 0.96, "share_large": share, "target_met": is_met}
        lines = dict.fromkeys(("bounded", "naive", "small", "large", "random", "prompt_length", "oracle"), line)
        return {"dataset": "gsm8k", "num_fitted": 10, "num_held_out": 5, "seed": seed, "lines": lines, "share_needed": {"random": 0.8}}

    (found,) = summary([row(0, 0.4, True), row(1, 0.6, False)])
    assert found["num_splits"] == 2
    assert found["bounded"]["share_large"] == 0.5
    assert found["bounded"]["target_met"] == 0.5
    assert found["bounded"]["saving_at_price_ratio"]["0.1"] == pytest.approx(0.5 * 0.9)
    assert found["share_needed"] == {"random": 0.8}
