"""The list of commands: each answers --help, and `tokenport bench` becomes them."""

import json
import subprocess
import sys

import pytest

from benchmarks.__main__ import _COMMANDS, main


@pytest.mark.parametrize("command", list(_COMMANDS))
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"], {})
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: tokenport bench {command}")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("throughput http://localhost --concurency 3", "unknown '--concurency'; did you mean --concurrency?"),
        ("startup --serve m --repeat 3", "unknown '--repeat'; did you mean --repeats?"),
        ("memory --serv m", "unknown '--serv'; did you mean --serve?"),
        ("compare a b --fail 3", "unknown '--fail'; did you mean --fail-if?"),
        ("report a --htm b", "unknown '--htm'; did you mean --html?"),
        ("latency http://localhost --xyz", "unknown '--xyz'; --help tells all"),
        ("limits --ou x", "unknown '--ou'; did you mean --out?"),
        ("quality m --htm x", "unknown '--htm'; did you mean --html?"),
        ("schema x", "unknown 'x'; --help tells all"),
        ("cascade http://localhost", "the following arguments are required: --questions, --tiers"),
    ],
)
def test_a_wrong_word_is_told_in_one_line_and_no_option_may_be_shortened(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words.split(), {})
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"tokenport bench {words.split()[0]}: {told}\n"


def test_help_lists_all_commands(capsys):
    assert main([], {}) == 0
    told = capsys.readouterr().out
    assert all(f"  {command} " in told for command in _COMMANDS)


def test_an_unknown_command_is_told_with_the_known_ones(capsys):
    assert main(["thruput"], {}) == 2
    assert "'thruput'; expected throughput, latency" in capsys.readouterr().err


def test_tokenport_bench_is_these_commands():
    done = subprocess.run([sys.executable, "-m", "serving", "bench", "schema"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["properties"]["schema_version"]
    wrong = subprocess.run(
        [sys.executable, "-m", "serving", "bench", "compare", "/nowhere.json"], capture_output=True, text=True, timeout=60
    )
    assert wrong.returncode == 2
