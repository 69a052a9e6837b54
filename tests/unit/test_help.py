"""`tokenport help` and `version` take no word for nothing."""

import pytest

from serving.__main__ import main


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["help", "--engin"], "tokenport help: unknown '--engin'; help takes --engine, and a command explains itself with --help"),
        (["help", "bench"], "tokenport help: unknown 'bench'; help takes --engine, and a command explains itself with --help"),
        (["version", "--all"], "tokenport version: unknown '--all'; version takes nothing"),
    ],
)
def test_a_word_that_would_do_nothing_is_refused(words, told, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines() == [told]


def test_the_engines_arguments_are_explained_where_asked_for(capsys):
    assert main(["serve", "a-model", "--help", "--engine"]) == 0
    assert "--max-model-len" in capsys.readouterr().out
    assert main(["help"]) == 0
    assert "--max-model-len" not in capsys.readouterr().out
