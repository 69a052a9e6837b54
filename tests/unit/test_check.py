"""`tokenport check`: what it says is served is what was found to be servable."""

import pytest

from serving.__main__ import main

TIERS = """\
tiers:
  - {name: small, engine: local, price: {per_hour: 1}}
  - {name: large, engine: openai, url: "https://llm.example.com/v1", model: big, api_key_env: LARGE_API_KEY, price: {input: 3, output: 15}}
"""


@pytest.fixture
def cascade(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "cascade.yaml").write_text(TIERS)
    monkeypatch.delenv("LARGE_API_KEY", raising=False)
    return ["check", str(tmp_path), "--cascade", str(tmp_path / "cascade.yaml")]


def test_a_cascade_that_can_be_is_told_with_the_model(cascade, monkeypatch, capsys):
    monkeypatch.setenv("LARGE_API_KEY", "secret")
    assert main(cascade) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"and for the model auto, through the tiers of {cascade[-1]}"


def test_a_cascade_that_cannot_be_is_not_told_as_one_that_serves(cascade, capsys):
    assert main(cascade) == 1
    told = capsys.readouterr()
    assert "through the tiers" not in told.out
    assert "LARGE_API_KEY is not set" in told.err
