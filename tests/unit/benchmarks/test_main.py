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
