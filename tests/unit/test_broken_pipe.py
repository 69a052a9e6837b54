"""A command whose reader goes away, as `| head` does, ends quietly."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("words", [["help"], ["serve", "--help"]])
def test_a_reader_that_goes_away_is_no_failure(words):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        ended = subprocess.run([sys.executable, "-m", "serving", *words], stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (141, "")
