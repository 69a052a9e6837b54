import dataclasses
import json

import pytest

from serving.cascade.policy import FittedOn, Policy, Rule, Stage
from serving.cascade.policy_file import read_policy, unknown_signals, write_policy
from serving.errors import CascadeError

BEFORE = Rule({"num_turns": -0.25}, 0.5, (0.25, 0.75), (0.125, 0.9), threshold=0.0)
AFTER = Rule({"num_turns": -0.25, "margin_mean": 3.0}, -1.0, (0.5,), (0.6,), threshold=None)
FITTED_ON = FittedOn("ab" * 32, 1000, 500, 500, 0.95, 0.9, 0, None)
POLICY = Policy((Stage("small", BEFORE, AFTER, 32),), "large", FITTED_ON, {"small.model": "sha256:1", "large.sampling": "sha256:2"})


def change(path, **changes):
    """Write the policy with fields replaced; a double underscore goes into `stages[0].before` and the like."""
    document = {"schema_version": 1, **dataclasses.asdict(POLICY)}
    for name, value in changes.items():
        *way, last = name.split("__")
        place = document
        for step in way:
            place = place[0][step] if isinstance(place, list | tuple) else place[step]
        (place[0] if isinstance(place, list | tuple) else place)[last] = value
    path.write_text(json.dumps(document))
    return path


def test_a_policy_comes_back_as_it_was_written(tmp_path):
    write_policy(POLICY, tmp_path / "policy.json")
    assert read_policy(tmp_path / "policy.json") == POLICY


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema_version": 2}, "schema_version is 2; this version reads 1"),
        ({"last_teir": "x"}, "unknown field last_teir; did you mean 'last_tier'?"),
        ({"stages__holdtokens": 1}, "unknown field stages.0.holdtokens; did you mean 'hold_tokens'?"),
        ({"stages__before__treshold": 1}, "unknown field stages.0.before.treshold; did you mean 'threshold'?"),
        ({"fitted_on__sed": 1}, "unknown field fitted_on.sed; did you mean 'seed'?"),
        ({"last_tier": 3}, "last_tier: input should be a valid string"),
        ({"stages__hold_tokens": "32"}, "stages.0.hold_tokens: input should be a valid integer"),
        ({"stages__before__threshold": float("nan")}, "stages.0.before.threshold: input should be a finite number"),
        ({"stages__before__levels": [0.9, 0.1]}, "the before rule of 'small': expected as many levels as steps, at least one, both rising"),
        ({"stages__before__steps": [0.5, 0.5]}, "both rising"),
        ({"stages__after__steps": []}, "the after rule of 'small': expected as many levels as steps"),
        ({"stages__before": None, "stages__after": None}, "the stage of 'small' has neither `before` nor `after`"),
        ({"stages__hold_tokens": 0}, "hold_tokens is 0"),
        ({"stages__after": None}, "hold_tokens is 32"),
        ({"last_tier": "small"}, "the tiers small, small are not all different"),
        ({"valid_for": {"medium.model": "x"}}, "valid_for has 'medium.model'; expected TIER.model"),
        ({"valid_for": {"small.weights": "x"}}, "valid_for has 'small.weights'"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused_in_one_line(tmp_path, changes, told):
    with pytest.raises(CascadeError) as error:
        read_policy(change(tmp_path / "policy.json", **changes))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "told"), [("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("[]", "schema_version is None")])
def test_what_is_no_policy_at_all_is_refused(tmp_path, content, told):
    (tmp_path / "policy.json").write_text(content)
    with pytest.raises(CascadeError, match=told):
        read_policy(tmp_path / "policy.json")


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(CascadeError, match="cannot read"):
        read_policy(tmp_path / "policy.json")
    with pytest.raises(CascadeError, match="cannot write"):
        write_policy(POLICY, tmp_path / "none" / "policy.json")


def test_signals_that_no_server_computes_are_found():
    assert unknown_signals(POLICY) == []
    odd = dataclasses.replace(BEFORE, weights={"margin_mean": 1.0, "num_turns": 1.0})
    # Before anything is generated there are no signals of tokens.
    assert unknown_signals(dataclasses.replace(POLICY, stages=(Stage("small", odd, None, 0),))) == ["margin_mean"]
    odd = dataclasses.replace(AFTER, weights={"margin_mean": 1.0, "judge": 1.0})
    assert unknown_signals(dataclasses.replace(POLICY, stages=(Stage("small", None, odd, 1),))) == ["judge"]
