"""Compiled caches that come with a model, and how they are made."""

import json
import logging
import os
import sys
import time
from pathlib import Path

import pytest

from serving.engine.shipped_cache import FOLDER, origin, ship_cache, take_shipped_cache
from serving.engine.warm import warm
from serving.errors import StartError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder that ships a cache."""
    folder, made = tmp_path / "model", tmp_path / "made"
    folder.mkdir()
    (made / "vllm" / "torch_compile_cache").mkdir(parents=True)
    (made / "vllm" / "torch_compile_cache" / "graph").write_bytes(b"compiled")
    (made / "models").mkdir()
    (made / "models" / "weights").write_bytes(b"not a cache")
    assert ship_cache(made, folder) == len(b"compiled")
    return folder


def test_a_trusted_cache_is_put_where_the_compilers_look(model, tmp_path):
    assert take_shipped_cache(model, tmp_path / "cache", is_trusted=True) == 1
    assert (tmp_path / "cache" / "vllm" / "torch_compile_cache" / "graph").read_bytes() == b"compiled"
    assert sorted(file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()) == ["graph"]
    # The second start finds all there.
    assert take_shipped_cache(model, tmp_path / "cache", is_trusted=True) == 0


def test_a_cache_that_nobody_trusts_is_left_and_named(model, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="tokenport.engine"):
        assert take_shipped_cache(model, tmp_path / "cache", is_trusted=False) == 0
    assert "trust_shipped_cache=true" in caplog.text
    assert not (tmp_path / "cache").exists()


def test_what_is_there_already_stays(model, tmp_path):
    own = tmp_path / "cache" / "vllm" / "torch_compile_cache" / "graph"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"newer")
    assert take_shipped_cache(model, tmp_path / "cache", is_trusted=True) == 0
    assert own.read_bytes() == b"newer"


def test_a_cache_of_another_version_is_not_used_and_the_difference_is_told(model, tmp_path, caplog):
    (model / FOLDER / "origin.json").write_text(json.dumps({**origin(), "torch": "1.0"}))
    assert take_shipped_cache(model, tmp_path / "cache", is_trusted=True) == 0
    assert "torch 1.0 there" in caplog.records[-1].difference


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_cache_that_does_not_say_where_it_was_made_is_not_used(model, tmp_path, text):
    (model / FOLDER / "origin.json").unlink()
    if text is not None:
        (model / FOLDER / "origin.json").write_text(text)
    assert take_shipped_cache(model, tmp_path / "cache", is_trusted=True) == 0


def test_links_are_not_followed(model, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (model / FOLDER / "vllm" / "link").symlink_to(secret)
    (model / FOLDER / "triton").symlink_to(tmp_path)
    assert take_shipped_cache(model, tmp_path / "cache", is_trusted=True) == 1
    assert not (tmp_path / "cache" / "vllm" / "link").exists()
    assert not (tmp_path / "cache" / "triton").exists()


def test_a_full_or_read_only_cache_folder_does_not_stop_the_start(model, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    assert take_shipped_cache(model, tmp_path / "cache", is_trusted=True) == 0
    assert "could not be copied" in caplog.text


def test_a_model_without_a_cache_is_nothing_to_speak_of(tmp_path, caplog):
    assert take_shipped_cache(tmp_path, tmp_path / "cache", is_trusted=False) == 0
    assert not caplog.records


# A server that stands in: it takes the words that `tokenport serve` takes, and compiles a file.
SERVER = """
import signal, sys, time
from pathlib import Path
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
{steps}
"""
COMPILES = "cache = Path(words['--cache-dir'], 'inductor'); cache.mkdir(parents=True); (cache / 'kernel').write_text(words['--seed'])\n"
READY = "print('Tokenport is ready: x', flush=True); time.sleep(60)\n"


def serve(steps: str) -> list[str]:
    return [sys.executable, "-c", SERVER.format(steps=steps)]


def test_warming_starts_once_with_the_settings_and_ships_what_was_compiled(tmp_path):
    started = time.monotonic()
    assert warm(tmp_path, tmp_path / "cache", ["--seed", "7"], serve=serve(COMPILES + READY)) == 1
    assert (tmp_path / FOLDER / "inductor" / "kernel").read_text() == "7"
    assert time.monotonic() - started < 30
    # Again, over what is there.
    (tmp_path / "cache" / "inductor" / "kernel").write_text("12")
    assert ship_cache(tmp_path / "cache", tmp_path) == 2
    assert sorted(os.listdir(tmp_path)) == [FOLDER, "cache"]


def test_a_server_that_does_not_come_up_is_told_in_its_own_words(tmp_path):
    failing = serve("sys.exit('tokenport: the engine process died')")
    with pytest.raises(StartError, match=r"^the engine process died$"):
        warm(tmp_path, tmp_path / "cache", [], serve=failing)
    assert not (tmp_path / FOLDER).exists()


def test_warming_has_a_deadline(tmp_path):
    with pytest.raises(StartError, match="not ready within"):
        warm(tmp_path, tmp_path / "cache", [], serve=serve("time.sleep(60)"), deadline_s=0.5)
