"""cascade.yaml: what is taken, and that everything else is named."""

from pathlib import Path

import pytest

from serving.cascade.config import BedrockTier, Bounds, LocalTier, OpenAITier, read_cascade
from serving.errors import SettingsError

LOCAL = "{name: small, engine: local, price: {per_hour: 1.2}}"
LARGE = "{name: large, engine: openai, url: 'https://host/v1', model: m, price: {input: 3, output: 15}}"


def written(folder: Path, text: str) -> Path:
    path = folder / "cascade.yaml"
    path.write_text(text)
    return path


def test_tiers_prices_and_limits_are_read_and_the_policy_is_beside_the_file(tmp_path):
    config = read_cascade(
        written(
            tmp_path,
            f"""
policy: policy.json
hold_ms: 800
deadline_s: 60
attempts: 3
cost_limit_usd: 0.02
breaker: {{failures: 4, cooldown_s: 10}}
sticky_s: 600
budget: {{usd: 5, window_s: 3600, per: key, then: small}}
tiers:
  - {LOCAL[:-1]}, takes: {{conversation_characters: {{max: 8000}}, num_turns: {{min: 1, max: 6}}}}}}
  - {LARGE}
  - {{name: best, engine: bedrock, model: 'arn:aws:bedrock:eu-west-1:1:provisioned-model/x', price: {{per_hour: 40}}}}
""",
        )
    )
    assert [type(tier) for tier in config.tiers] == [LocalTier, OpenAITier, BedrockTier]
    assert config.tiers[0].takes == {"conversation_characters": Bounds(max=8000), "num_turns": Bounds(min=1, max=6)}
    assert config.policy == str(tmp_path / "policy.json")
    assert config.tiers[0].price.per_hour == 1.2
    assert config.budget is not None
    assert config.budget.then == "small"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"tiers: [{LOCAL}]\nholdms: 3", "unknown field 'holdms'; did you mean 'hold_ms'?"),
        (f"tiers: [{LOCAL[:-1]}, prise: 3}}]", "prise"),
        ("tiers: [{name: small, engine: local, price: {hourly: 3}}]", "unknown field 'hourly' in tiers[0].price"),
        (
            f"tiers: [{LOCAL[:-1]}, takes: {{num_turn: {{max: 3}}}}}}]",
            "unknown field 'num_turn' in tiers[0].takes; did you mean 'num_turns'?",
        ),
        (f"tiers: [{LOCAL[:-1]}, sampling: {{temprature: 0}}}}]", "'temprature' in tiers[0].sampling; did you mean 'temperature'?"),
        (f"tiers: [{LOCAL[:-1]}, sampling: {{stream: 1}}}}]", "unknown field 'stream' in tiers[0].sampling; temperature, top_p"),
        (f"tiers: [{LOCAL[:-1]}, sampling: {{top_p: .inf}}}}]", "tiers[0].sampling.top_p"),
        (f"tiers: [{LOCAL[:-1]}, takes: {{words: {{}}}}}}]", "tiers[0].takes.words: has neither `min` nor `max`"),
        (f"tiers: [{LOCAL[:-1]}, takes: {{words: {{min: 5, max: 3}}}}}}]", "tiers[0].takes.words: min 5 is above max 3"),
        (f"tiers: [{LOCAL[:-1]}, takes: {{words: {{most: 3}}}}}}]", "tiers[0].takes.words.most"),
        (f"tiers: [{LOCAL[:-1]}, takes: {{words: 3}}}}]", "tiers[0].takes.words"),
        (f"tiers: [{LOCAL[:-1]}, takes: {{words: {{max: -1}}}}}}]", "tiers[0].takes.words.max"),
        ("tiers: [{name: small, engine: local}]", "tiers[0].price"),
        ("tiers: [{name: small, engine: lokal, price: {}}]", "lokal"),
        ("tiers: [{name: small, engine: local, url: 'http://h', price: {}}]", "tiers[0].url"),
        (f"tiers: [{LOCAL}]\nattempts: 0", "attempts"),
        (f"tiers: [{LOCAL}]\nattempts: two", "attempts"),
        (f"tiers: [{LOCAL}]\ndeadline_s: .inf", "deadline_s"),
        (f"tiers: [{LOCAL}]\nbudget: {{usd: 1, window_s: 60}}", "budget.then"),
        (f"tiers: [{LARGE}]", "exactly one must have `engine: local`, the model of this server, and 0 have"),
        (f"tiers: [{LOCAL}, {LOCAL.replace('small', 'other')}]", "and 2 have"),
        (f"tiers: [{LOCAL}, {LARGE.replace('large', 'small')}]", "tiers[1].name: 'small' is taken"),
        (f"tiers: [{LOCAL.replace('small', 'auto')}]", "tiers[0].name: 'auto' is taken"),
        ("tiers: [{name: small, engine: local, price: {per_hour: 1, input: 1}}]", "tiers[0].price: `per_hour` and a price of tokens"),
        (f"tiers: [{LOCAL}, {LARGE.replace('https', 'ftp')}]", "tiers[1].url: expected http:// or https://"),
        (f"tiers: [{LOCAL}, {LARGE.replace('host', 'u:secret@host')}]", "tiers[1].url: a URL without user"),
        ("tiers: []", "tiers"),
        ("- 1", "must be a mapping with `tiers`"),
        ("tiers: [", "line 1: expected the node content"),
        (f"tiers: [{LOCAL}]\nsticky_s: 1\nsticky_s: 2", "the key sticky_s is there twice"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, text, told):
    with pytest.raises(SettingsError) as raised:
        read_cascade(written(tmp_path, text))
    assert told in str(raised.value)
    assert "cascade.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.yaml cannot be read: No such file"):
        read_cascade(tmp_path / "nowhere.yaml")
