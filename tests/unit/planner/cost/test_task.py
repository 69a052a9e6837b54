"""The smallest model that is good enough: bounds against closed forms and by simulation, the file, and the command."""

import json

import numpy as np
import pytest

from serving.errors import PlanError
from serving.planner.commands.task import run
from serving.planner.cost.task_quality import Candidate, clopper_pearson, hoeffding, pick

SMALL = {"name": "small", "parameters": 1e9, "scores": [1] * 85 + [0] * 15}
MIDDLE = {"name": "middle", "parameters": 3e9, "scores": [1] * 480 + [0] * 20}
LARGE = {"name": "large", "parameters": 8e9, "mean": 0.97, "num_examples": 2000}


@pytest.fixture
def written(tmp_path):
    def write(*models, **more):
        path = tmp_path / "results.json"
        path.write_text(json.dumps({"task": "classification", "metric": "accuracy", "models": models, **more}))
        return str(path)

    return write


def test_the_exact_bound_of_all_right_is_the_root_of_the_error():
    assert clopper_pearson(50, 50, 0.05) == pytest.approx(0.05 ** (1 / 50))
    assert clopper_pearson(0, 50, 0.05) == 0


def test_hoeffdings_bound_of_a_mean_of_one_is_the_same_root():
    assert hoeffding(1.0, 50, 0.05) == pytest.approx(0.05 ** (1 / 50))
    assert hoeffding(0.0, 50, 0.05) == 0


@pytest.mark.parametrize("mean", [0.001, 0.3, 0.9, 0.999])
def test_hoeffdings_bound_lies_between_the_simple_form_and_the_exact_bound(mean):
    num_examples = 1000
    exact = clopper_pearson(round(mean * num_examples), num_examples, 0.05)
    assert mean - np.sqrt(np.log(20) / (2 * num_examples)) <= hoeffding(mean, num_examples, 0.05) <= exact


def test_the_bounds_hold_as_often_as_they_promise():
    rng = np.random.default_rng(0)
    right = rng.binomial(200, 0.9, size=2000)
    assert np.mean([clopper_pearson(int(number), 200, 0.05) > 0.9 for number in right]) <= 0.055
    # Between 0 and 1: the most spread out that a mean of 0.9 allows, with a few in the middle.
    means = rng.choice([0, 0.5, 1], p=[0.05, 0.1, 0.85], size=(2000, 200)).mean(axis=1)
    assert np.mean([hoeffding(float(mean), 200, 0.05) > 0.9 for mean in means]) <= 0.05


def test_picking_among_several_that_are_not_good_enough_errs_no_more_often_than_promised():
    rng = np.random.default_rng(1)
    right = rng.binomial(200, 0.899, size=(500, 8))

    def errs(numbers, **more):
        try:
            pick([Candidate(str(index), index, number / 200, 200, int(number)) for index, number in enumerate(numbers)], 0.9, **more)
        except PlanError:
            return False
        return True

    assert np.mean([errs(numbers, confidence=0.95) for numbers in right]) <= 0.05
    # What would come of it if each were held to 95 %: for comparison, so that the line above could fail.
    assert np.mean([any(errs([number], confidence=0.95) for number in numbers) for numbers in right]) > 0.15


@pytest.mark.parametrize("mean", [0.0005, 1e-300])
def test_the_bound_of_a_mean_close_to_zero_is_zero(mean):
    assert hoeffding(mean, 10, 0.05) == 0


def test_of_equally_small_models_the_surer_one_is_picked(written, capsys):
    better = {"name": "z", "parameters": 1e9, "mean": 0.95, "num_examples": 5000}
    worse = {"name": "a", "parameters": 1e9, "mean": 0.93, "num_examples": 5000}
    assert run(["classification", "--quality", written(worse, better)], {}) == 0
    assert capsys.readouterr().out.startswith("z: ")


def test_a_confidence_is_told_as_it_was_given_and_one_that_was_not_as_assumed(written, capsys):
    run(["classification", "--quality", written(MIDDLE), "--confidence", "0.999"], {})
    told = capsys.readouterr().out
    assert "at 99.9% confidence" in told
    assert told.endswith("Assumed: --at-least 0.9\n")
    run(["classification", "--quality", written(MIDDLE), "--confidence", "0.999", "--json"], {})
    assert json.loads(capsys.readouterr().out)["assumed"] == ["--at-least 0.9"]


def test_the_smallest_that_holds_is_picked_and_the_smaller_ones_are_explained(written, capsys):
    assert run(["classification", "--quality", written(LARGE, SMALL, MIDDLE)], {}) == 0
    told = capsys.readouterr().out
    assert told.startswith("middle: the smallest of 3 that holds accuracy 0.9 at 95% confidence")
    assert "small, 1,000,000,000 parameters: mean 0.850 of 100 examples, lower bound 0." in told
    assert "not picked, its mean is below 0.9" in told
    assert "large" not in told


def test_a_mean_above_the_bound_of_too_few_examples_is_not_enough(written, capsys):
    few = {"name": "few", "parameters": 1e9, "scores": [1] * 19 + [0]}
    run(["classification", "--quality", written(few, MIDDLE)], {})
    told = capsys.readouterr().out
    assert told.startswith("middle:")
    assert "few, 1,000,000,000 parameters: mean 0.950 of 20 examples" in told
    assert "not picked, too few examples to be sure of 0.9" in told


def test_more_candidates_make_each_harder_to_pick(written, capsys):
    def bound(*models):
        run(["classification", "--quality", written(*models), "--json"], {})
        return json.loads(capsys.readouterr().out)["picked"]["lower_bound"]

    assert bound(MIDDLE, LARGE) < bound(MIDDLE)


def test_prices_go_before_bytes_and_bytes_before_parameters(written, capsys):
    one = {"name": "one", "parameters": 1e9, "bytes": 9e9, "mean": 0.99, "num_examples": 1000, "usd_per_million_tokens": 0.5}
    other = {"name": "other", "parameters": 2e9, "bytes": 8e9, "mean": 0.99, "num_examples": 1000, "usd_per_million_tokens": 0.6}
    for order, cheapest in (("usd_per_million_tokens", "one"), ("bytes", "other"), ("parameters", "one")):
        run(["classification", "--quality", written(one, other), "--json"], {})
        found = json.loads(capsys.readouterr().out)
        assert (found["ordered_by"], found["picked"]["candidate"]["name"]) == (order, cheapest)
        one.pop(order)


def test_without_an_evaluation_nothing_is_picked():
    with pytest.raises(PlanError, match="task code: give --quality FILE with your own evaluation"):
        run(["code"], {})


def test_none_that_holds_is_told_with_the_nearest(written):
    with pytest.raises(PlanError, match=r"no model holds 0.99 .* large comes nearest: mean 0.970 of 2000 examples"):
        run(["classification", "--quality", written(SMALL, LARGE), "--at-least", "0.99"], {})


def test_an_evaluation_of_another_task_is_refused(written):
    with pytest.raises(PlanError, match="task 'classification': the file is not for extraction"):
        run(["extraction", "--quality", written(SMALL)], {})


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(PlanError, match="task 'summarization' is unknown; the nearest is 'summarisation'"):
        run(["summarization"], {})


def test_what_tokenport_bench_quality_writes_is_refused_by_name(written):
    with pytest.raises(PlanError, match="is a result of `tokenport bench quality`"):
        run(["classification", "--quality", written(SMALL, kind="quality")], {})


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"parameters": 1e9, "scores": [1]}, "models[0]: must be an object with a name"),
        ({"name": "a", "parameters": 1e9}, "give either scores, or mean and num_examples"),
        ({"name": "a", "parameters": 1e9, "scores": [1], "mean": 1}, "give either scores, or mean and num_examples"),
        ({"name": "a", "parameters": 1e9, "scores": []}, "models[0] (a).scores: must be a list of at least one"),
        ({"name": "a", "parameters": 1e9, "scores": [1, 2]}, "models[0] (a).scores[1] 2: must be a number from 0 to 1"),
        ({"name": "a", "parameters": 1e9, "scores": [1, True]}, "scores[1] True"),
        ({"name": "a", "parameters": 1e9, "scores": [1], "num_examples": 2}, "num_examples 2: there are 1 scores"),
        ({"name": "a", "parameters": 1e9, "mean": 1.5, "num_examples": 5}, "mean 1.5: must be a number from 0 to 1"),
        ({"name": "a", "parameters": 1e9, "mean": 0.5}, "num_examples None: must be a whole number"),
        ({"name": "a", "parameters": 1e9, "mean": 0.5, "num_examples": 10**400}, "must be a whole number of at least 1"),
        ({"name": "a", "parameters": 10**400, "scores": [1]}, "must be a number above 0"),
        ({"name": "a", "parameters": -1, "scores": [1]}, "parameters -1: must be a number above 0"),
        ({"name": "a", "parameter": 1, "scores": [1]}, "field 'parameter' is unknown; the nearest is 'parameters'"),
        ({"name": "a", "scores": [1]}, "what is smaller is not known"),
    ],
)
def test_a_malformed_model_is_told_by_its_field(written, model, told):
    with pytest.raises(PlanError) as caught:
        run(["classification", "--quality", written(model)], {})
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("models", "more", "told"),
    [
        ([], {}, "models must be a list of at least one model"),
        ([SMALL, SMALL], {}, "model 'small' is there twice"),
        ([SMALL], {"metric": ""}, "metric ''"),
        ([SMALL], {"model": "x"}, "field 'model' is unknown; the nearest is 'models'"),
    ],
)
def test_a_malformed_file_is_told(written, models, more, told):
    with pytest.raises(PlanError) as caught:
        run(["classification", "--quality", written(*models, **more)], {})
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["{", None, "[]"])
def test_a_file_that_is_no_object_is_told(tmp_path, text):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PlanError, match=r"--quality .*results.json: (cannot be read as JSON|must be an object)"):
        run(["classification", "--quality", str(path)], {})


@pytest.mark.parametrize("words", [["--at-least", "1"], ["--at-least", "nine"], ["--confidence", "0"]])
def test_a_share_that_is_none_is_told(written, words):
    with pytest.raises(PlanError, match=words[0]):
        run(["classification", "--quality", written(SMALL), *words], {})


@pytest.mark.parametrize("words", [[], ["code", "--qualty", "x"]])
def test_a_wrong_command_line_ends_with_2_and_one_line(words, capsys):
    with pytest.raises(SystemExit) as caught:
        run(words, {})
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
