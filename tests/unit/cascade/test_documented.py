"""docs/cascade-policy.md says what the code does and what was measured."""

import json
import re
from pathlib import Path

import pytest

from serving.cascade import request_features, token_signals
from serving.cascade.config import read_cascade

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "cascade-policy.md").read_text()
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "cascade-outcomes-2026-11-25.json").read_text())


def cells(first: str) -> list[list[str]]:
    """The rows of the tables whose first cell matches."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    return [row for row in rows if re.fullmatch(first, row[0])]


def test_every_signal_is_named():
    assert [name for name in (*request_features.NAMES, *token_signals.NAMES) if f"`{name}`" not in PAGE] == []


def test_the_shares_at_which_60_and_80_percent_are_saved():
    for row in cells(r"0\.\d+"):
        ratio = float(row[0])
        shares = [1 - saving / (1 - ratio) for saving in (0.6, 0.8)] + [1 - ratio - saving for saving in (0.6, 0.8)]
        assert row[1:] == ["never" if share < -1e-9 else f"{abs(share):.0%}".replace("%", " %") for share in shares]


@pytest.mark.parametrize("summary", RESULTS["summary"], ids=lambda summary: f"{summary['dataset']}-{summary['num_fitted']}")
def test_the_measured_table_is_that_of_the_results(summary):
    (row,) = cells(f"{summary['dataset'].upper()}, {summary['num_fitted']:,}")
    bounded, naive, needed = summary["bounded"], summary["naive"], summary["share_needed"]
    shares = [bounded["share_large"], naive["share_large"], needed["prompt_length"], needed["random"], needed["oracle"]]
    met = [bounded["target_met"], naive["target_met"]]
    savings = [bounded["saving_at_price_ratio"]["0.1"], naive["saving_at_price_ratio"]["0.1"]]
    assert row[1:] == [f"{100 * number:.0f} %" for number in (*shares, *met, *savings)]


def test_every_name_that_a_rule_can_bound_is_documented():
    page = (ROOT / "docs" / "cascade.md").read_text()
    assert [name for name in request_features.PLAIN_NAMES if f"`{name}`" not in page] == []


def test_the_file_that_is_shown_is_one_that_is_taken(tmp_path):
    shown = (ROOT / "docs" / "cascade.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "cascade.yaml").write_text(shown)
    config = read_cascade(tmp_path / "cascade.yaml")
    assert [tier.engine for tier in config.tiers] == ["local", "openai", "bedrock"]
    assert set(config.tiers[0].takes) == {"conversation_characters", "code_fences"}
