"""What several tests of `tokenport plan cost` need."""

import json

import pytest

from serving.planner.commands.cost import run


@pytest.fixture
def report(capsys):
    """What the command prints as JSON for these words."""

    def of(words):
        assert run([*words.split(), "--json"], {}) == 0
        return json.loads(capsys.readouterr().out)

    return of
