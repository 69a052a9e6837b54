"""The figures of docs/planning-cost.md: every command there is run, and what it prints is what stands under it."""

import re
from pathlib import Path

import pytest

from serving.planner.commands.cost import run

DOCUMENT = (Path(__file__).parents[4] / "docs" / "planning-cost.md").read_text(encoding="utf-8")
BLOCKS = [
    (command.replace("\\\n", " ").split(), shown.splitlines())
    for command, shown in re.findall(r"```console\n\$ tokenport plan cost (.*?[^\\])\n(.*?)```", DOCUMENT, re.DOTALL)
]


def test_the_document_shows_all_four_rules():
    assert len(BLOCKS) == 4


@pytest.mark.parametrize(("words", "shown"), BLOCKS, ids=[f"{words[1]}-{words[3]}" for words, _ in BLOCKS])
def test_the_command_prints_what_is_shown(words, shown, capsys):
    assert run(words, {}) == 0
    printed = "\n".join(_told(capsys.readouterr().out.splitlines()))
    # "..." stands for what is left out, and nothing else is.
    parts = "\n".join(_told(shown)).split("\n...")
    assert printed.startswith(parts[0]) if len(parts) > 1 else printed == parts[0]


def _told(lines):
    return [line.rstrip() for line in lines if line.strip()]
